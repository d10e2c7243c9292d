"""Bars of the solvers, one file per question."""

import os
import sys
from collections.abc import Callable, Iterator
from itertools import chain

from benchmarks.bar import Bar
from benchmarks.solvers import proofs, structures, truth

# Each takes `small` by keyword and yields its bars; add one line per file.
_PARTS: tuple[Callable[..., Iterator[Bar]], ...] = (
    truth.run,
    proofs.run,
    structures.run,
)


def run(*, small: bool) -> Iterator[Bar]:
    """Measure the bars of all files, one after the other, every solver on the same one core."""
    if sys.platform == "linux":
        # The last core of those we may use; what is started here inherits it.
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    return chain.from_iterable(part(small=small) for part in _PARTS)
