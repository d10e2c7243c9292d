"""How much a search may spend, and what that chooses to measure by."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, final

from mpsearch.errors import UsageError
from mpsearch.search.refinement import pass_forwards
from mpsearch.sensitivity import OutputProbe
from mpsearch.workflow.changes import EXACT
from mpsearch.workflow.estimate import estimated_seconds
from mpsearch.workflow.measure import Measured, default_formats, runtime_named
from mpsearch.workflow.prepare import Prepared

# In exact passes: one, and the verification of what it proposes.
DEFAULT_EFFORT: Final = 1.25
# Below, an exact pass would leave nothing to verify with: random directions take its place.
EXACT_FROM: Final = 1.2
# From here on random directions are proposed from beside the exact pass.
_PROBE_FROM: Final = 1.6
# What an exact pass, random directions and one round take together.
_ROUNDS_FROM: Final = 2.5
# Directions per sample: at least three, more where samples are few.
_FEWEST_DRAWS: Final = 3
_MOST_DRAWS: Final = 8
_DRAWS_AT_ALL: Final = 32
_NUMBERS: Final = 1000
# Of what may be spent, directions take at most so much: alone, and beside an exact pass.
_SHARE_OF_DRAWS: Final = 0.8
_SHARE_BESIDE: Final = 0.2
# A draw runs forward and backward, and a product per layer and format; as it was timed.
_FORWARDS_PER_DRAW: Final = 3.0


@final
@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much may be spent: `passes` in exact passes of single layers, and seconds."""

    passes: float = DEFAULT_EFFORT
    seconds: float = float("inf")

    @staticmethod
    def of(passes: float, *, seconds: float | None) -> "Effort":
        """Return the effort that a user asks for.

        Raises:
            UsageError: It is not positive.
        """
        limit = float("inf") if seconds is None else float(seconds)
        if not (passes > 0 and limit > 0):
            raise UsageError(
                f"Effort {passes:g} within {limit:g} s leaves nothing to spend. Expected positive "
                f"numbers, such as {DEFAULT_EFFORT} exact passes. Allow more."
            )
        return Effort(passes=float(passes), seconds=limit)

    def within(self, exact_seconds: float) -> "Effort":
        """Return the effort that the seconds leave room for, given those of an exact pass."""
        return replace(self, passes=min(self.passes, self.seconds / max(exact_seconds, 1e-9)))

    @property
    def is_exact(self) -> bool:
        """Return whether every pair of layer and format is measured by itself."""
        return self.passes >= EXACT_FROM

    @property
    def has_probe(self) -> bool:
        """Return whether random directions are measured."""
        return not self.is_exact or self.passes >= _PROBE_FROM


def exact_pass_seconds(prepared: Prepared, *, formats: Sequence[str] | None, runtime: str) -> float:
    """Return about how long an exact pass takes on this machine, from one batch."""
    count = len(formats or default_formats(runtime_named(runtime).name))
    return estimated_seconds(replace(prepared, base=None), formats=("any",) * count, bases=1)


def effort_told(effort: Effort, *, measured: Measured, prepared: Prepared) -> str:
    """Say which metric the effort chose, and what the next step up would cost."""
    exact = pass_forwards(prepared.traced, measured.scope.offered)
    draws = probe_draws(prepared, effort=effort, formats=measured.scope.formats)
    spends = f"Effort {effort.passes:.3g} allows {effort.passes * exact:.0f} forwards"
    if not effort.is_exact:
        return (
            f"{spends}: sensitivities are from {draws} random directions per sample. The next "
            f"step up, an exact pass, takes about {EXACT_FROM * exact:.0f} (effort {EXACT_FROM})."
        )
    if effort.passes < _ROUNDS_FROM:
        return (
            f"{spends}: sensitivities are exact, one layer and format at a time. The next step up, "
            f"rounds around the best plan, takes about {_ROUNDS_FROM * exact:.0f} forwards "
            f"(effort {_ROUNDS_FROM})."
        )
    return f"{spends}: an exact pass, random directions, and rounds around the best plan."


def probe_forwards(draws: int, *, formats: int) -> float:
    """Return what random directions cost, in forwards, whether they come from the cache or not."""
    return draws * (_FORWARDS_PER_DRAW + formats)


def probe_draws(prepared: Prepared, *, effort: Effort, formats: Sequence[str]) -> int:
    """Return with how many random directions per sample to begin.

    Too few numbers ruin interactions, so few samples get more; within what can be paid for.
    """
    wanted = min(max(-(-_NUMBERS // prepared.calibration.samples), _FEWEST_DRAWS), _MOST_DRAWS)
    return max(1, min(wanted, _payable_draws(prepared, effort=effort, formats=formats)))


def most_draws(prepared: Prepared, *, effort: Effort, formats: Sequence[str]) -> int:
    """Return up to how many random directions may be drawn while they change the plan."""
    payable = _payable_draws(prepared, effort=effort, formats=formats)
    return max(1, min(payable, _DRAWS_AT_ALL))


def _payable_draws(prepared: Prepared, *, effort: Effort, formats: Sequence[str]) -> int:
    traced = prepared.traced
    exact = pass_forwards(traced, dict.fromkeys(traced.graph.names, formats))
    share = _SHARE_BESIDE if effort.is_exact else _SHARE_OF_DRAWS
    return int(share * effort.passes * exact / probe_forwards(1, formats=len(formats)))


def metric_of(effort: Effort, *, prepared: Prepared, formats: Sequence[str]) -> str | OutputProbe:
    """Return what the sensitivity table is measured by."""
    if effort.is_exact:
        return EXACT
    return OutputProbe(draws=probe_draws(prepared, effort=effort, formats=formats))
