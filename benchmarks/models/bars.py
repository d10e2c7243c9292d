"""Bars of reading models, one file per question."""

from collections.abc import Iterator
from itertools import chain

from benchmarks.bar import Bar
from benchmarks.models.agreement import agreement
from benchmarks.models.node_cases import node_cases
from benchmarks.models.packages import packages
from benchmarks.models.reading import reading
from benchmarks.models.zoo import zoo


def run(*, small: bool) -> Iterator[Bar]:
    """Measure the bars of all files, one after the other."""
    return chain.from_iterable(
        part(small=small) for part in (node_cases, reading, agreement, packages, zoo)
    )
