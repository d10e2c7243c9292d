"""Bars of the whole path, one file per question."""

from collections.abc import Callable, Iterator
from itertools import chain

from benchmarks.bar import Bar
from benchmarks.path import demo, latency, resume, reuse

# Each takes `small` by keyword and yields its bars; add one line per file, the quickest first.
_PARTS: tuple[Callable[..., Iterator[Bar]], ...] = (
    reuse.bars,
    latency.bars,
    resume.bars,
    demo.bars,
)


def run(*, small: bool) -> Iterator[Bar]:
    """Measure the bars of all files, one after the other."""
    return chain.from_iterable(part(small=small) for part in _PARTS)
