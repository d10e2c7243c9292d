"""Bars of the HTTP service."""

from collections.abc import Iterator

from benchmarks.bar import Bar
from benchmarks.rest.answers import answers


def run(*, small: bool) -> Iterator[Bar]:
    """Measure how fast it answers, and whether as documented."""
    return answers(small=small)
