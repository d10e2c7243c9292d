"""How long a search will take on this machine, said before it begins."""

import logging
from collections.abc import Sequence
from time import perf_counter
from typing import Final

from mpsearch.execution import run
from mpsearch.workflow.prepare import Prepared

_LOG = logging.getLogger("mpsearch")
# One pass per layer and format, from the layer on: about half of a whole pass each.
_SHARE_OF_A_PASS: Final = 0.55
# Building one plan, timing it and reading its counters, on the slowest CPU it was tried on.
_SECONDS_PER_PLAN: Final = 2.5
# Plans measured per base beside the references: random ones that show the boundaries.
_RANDOM_PLANS: Final = 8
_REFERENCES: Final = 12


def estimated_seconds(prepared: Prepared, *, formats: Sequence[str], bases: int) -> float:
    """Return about how many seconds measuring takes if nothing of it is in the cache."""
    batch = next(iter(prepared.calibration))
    run(prepared.traced, batch)
    start = perf_counter()
    run(prepared.traced, batch)
    one_pass = perf_counter() - start
    pairs = len(prepared.traced.graph.layers) * len(formats)
    sensitivity = one_pass * len(prepared.calibration) * pairs * _SHARE_OF_A_PASS
    plans = 0 if prepared.base is None else bases * (_REFERENCES + _RANDOM_PLANS)
    return sensitivity + plans * _SECONDS_PER_PLAN


def announce(seconds: float) -> None:
    """Tell the log what is ahead."""
    _LOG.info(
        "At most about %.0f s of measuring ahead; what the cache holds is not measured again.",
        seconds,
    )
