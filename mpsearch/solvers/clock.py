"""Deadlines that hold inside long computations: the clock is read between chunks of work."""

import time

from mpsearch.solvers.compiled import HAS_NUMBA

# Steps of a loop between two looks at the clock: about 30 ms.
CHUNK = 1 << 20 if HAS_NUMBA else 1 << 13


class TimeUpError(Exception):
    """The deadline has passed; the search that is under way keeps what it has and ends."""


def check(deadline: float, *, ahead: float = 0.0) -> None:
    """Raise where `time.monotonic()`, or what it will be `ahead` seconds on, is past a deadline.

    Raises:
        TimeUpError: It is.
    """
    if time.monotonic() + ahead > deadline:
        raise TimeUpError
