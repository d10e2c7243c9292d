"""Bars of the service, one file per question."""

from collections.abc import Iterator
from itertools import chain

from benchmarks.bar import Bar
from benchmarks.service.contract import contract
from benchmarks.service.disk import full_disk
from benchmarks.service.kills import kills
from benchmarks.service.load import load
from benchmarks.service.uploads import killed_uploads


def run(*, small: bool) -> Iterator[Bar]:
    """Measure the bars of all files, one after the other."""
    parts = (load, kills, killed_uploads, full_disk, contract)
    return chain.from_iterable(part(small=small) for part in parts)
