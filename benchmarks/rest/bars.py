"""Bars of the HTTP service, one file per question."""

from collections.abc import Iterator
from itertools import chain

from benchmarks.bar import Bar
from benchmarks.rest.answers import answers
from benchmarks.rest.kills import kills


def run(*, small: bool) -> Iterator[Bar]:
    """Measure the bars of all files, one after the other."""
    return chain.from_iterable(part(small=small) for part in (answers, kills))
