"""Bars of sensitivity and search, one file per question."""

from collections.abc import Callable, Iterator
from itertools import chain

from benchmarks.bar import Bar
from benchmarks.sensitivity import (
    anywhere,
    closed_forms,
    forecast,
    kills,
    memory,
    price,
    referee,
    traces,
)

# Each takes `small` by keyword and yields its bars; add one line per file, the quickest first.
_PARTS: tuple[Callable[..., Iterator[Bar]], ...] = (
    anywhere.bars,
    price.bars,
    closed_forms.bars,
    forecast.bars,
    traces.bars,
    kills.bars,
    memory.bars,
    referee.bars,
)


def run(*, small: bool) -> Iterator[Bar]:
    """Measure the bars of all files, one after the other."""
    return chain.from_iterable(part(small=small) for part in _PARTS)
