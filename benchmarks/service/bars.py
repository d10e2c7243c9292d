"""Bars of the service, one file per question."""

from collections.abc import Iterator

from benchmarks.bar import Bar
from benchmarks.service.load import load


def run(*, small: bool) -> Iterator[Bar]:
    """Measure the bars of all files, one after the other."""
    return load(small=small)
