"""The smallest or fastest plan whose measured quality is certified to hold a bound."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, final

from jaxtyping import Float
from numpy import ndarray

from mpsearch.core.hardware import Resource
from mpsearch.core.plan import Plan
from mpsearch.core.progress import Progress, tracked
from mpsearch.errors import BoundNotHeldError, DeploymentError
from mpsearch.formulation import ParsedBudget, Yardsticks
from mpsearch.search.candidates import SearchSpace, identity
from mpsearch.search.rounds import HoldsContests, Judged, judge, reference_identities
from mpsearch.tasks.drop import Drop, DropBound, drop_of, samples_needed
from mpsearch.verification.contest import Entry

_PHASE: Final = "certify plans"
# So many of the leanest certified plans are timed against each other.
_FINALISTS: Final = 4
_NOT_TIMED: Final = "not among the leanest"
_NOT_CERTIFIED: Final = "not certified"


@final
@dataclass(frozen=True, kw_only=True)
class Certified:
    """Every plan that was measured, the chosen one first, with its drop on validation data.

    Behind those that were timed come those that were judged alone, each `left_out` with why.
    """

    judged: tuple[Judged, ...]
    drop: Drop


def search_within_drop(
    sequence: Sequence[Plan],
    *,
    bound: DropBound,
    minimised: Resource,
    space: SearchSpace,
    contest: HoldsContests,
    parsed: tuple[ParsedBudget, ...] = (),
    yardsticks: Yardsticks,
    progress: Progress | None = None,
) -> Certified:
    """Certify plans from safe to lean until one fails; return the leanest that was measured.

    The order is fixed before the validation data is seen, and the first failure ends it. So
    the chance that any certified plan truly loses more than the bound stays below 5 %,
    however many are tried, without a correction. Source: Maurer, Hothorn & Lehmacher (1995);
    for risk control in this form Angelopoulos et al. (2021), "Learn then Test", section 3.

    Args:
        sequence: Plans of the front, and references, in any order; judged by predicted loss.
        bound: What may be lost.
        minimised: What the chosen plan spends least of, as measured.
        space: The tables, whose reference plans are known.
        contest: Builds and measures plans.
        parsed: Further budgets that the chosen plan was measured to keep.
        yardsticks: What shares in them refer to.
        progress: Told after each plan.

    Raises:
        BoundNotHeldError: Not even the safest plan is certified; gives the interval, and with
            how many samples it could be.
        DataError: The validation data has no such measure.
        DeploymentError: None of the plans could be built.
    """
    known = reference_identities(space)
    certified: list[Plan] = []
    tested: list[tuple[Entry, str]] = []
    drops: dict[tuple[object, ...], Drop] = {}
    ordered = sorted(sequence, key=lambda plan: plan.forecast["loss"])
    for plan in tracked(ordered, _PHASE, total=len(ordered), progress=progress):
        (entry,) = contest.hold([plan], is_timed=False)
        tested.append((entry, _NOT_TIMED))
        if entry.quality is None:  # not built: nothing was tested, so nothing failed
            continue
        measure, differences = bound.differences(entry.quality.differences)
        drop = drop_of(differences, measure=measure)
        if not drop.holds(bound.bound):
            if not certified:
                raise _not_held(differences, drop=drop, bound=bound.bound)
            tested[-1] = (entry, _NOT_CERTIFIED)
            break
        certified.append(plan)
        drops[identity(plan)] = drop
    if not certified:
        raise DeploymentError(
            f"None of {len(ordered)} plans could be built. Expected one at least. Run "
            "`mpsearch doctor`, or choose another runtime."
        )
    lean = sorted(certified, key=lambda plan: plan.forecast[minimised])
    finalists = [*lean[:_FINALISTS], *(plan for plan in certified if identity(plan) in known)]
    entries = contest.hold(_distinct(finalists), progress=progress)
    judged = judge(entries, space=space, parsed=parsed, yardsticks=yardsticks)
    judged.sort(key=lambda each: (not each.keeps, _spent(each.entry, minimised)))
    timed = {identity(each.entry.plan) for each in judged}
    rest = [(entry, why) for entry, why in tested if identity(entry.plan) not in timed]
    others = judge([entry for entry, _ in rest], space=space, parsed=parsed, yardsticks=yardsticks)
    judged += [replace(each, left_out=why) for each, (_, why) in zip(others, rest, strict=True)]
    return Certified(judged=tuple(judged), drop=drops[identity(judged[0].entry.plan)])


def _spent(entry: Entry, resource: Resource) -> float:
    return math.inf if entry.broken else entry.amount[resource]


def _distinct(plans: Sequence[Plan]) -> list[Plan]:
    return list({identity(plan): plan for plan in plans}.values())


def _not_held(differences: Float[ndarray, " N"], *, drop: Drop, bound: float) -> BoundNotHeldError:
    needed = samples_needed(differences, bound=bound)
    more = (
        f"Give at least {needed:,} validation samples"
        if needed is not None
        else "Raise the bound, or offer formats with more bits"
    )
    return BoundNotHeldError(
        f"The safest plan loses {drop.mean:.3g} of {drop.measure!r} on {drop.samples:,} "
        f"validation samples, with 95 % confidence at most {drop.upper:.3g}. Expected at most "
        f"{bound:.3g}. {more}.",
        drop=drop.mean,
        upper=drop.upper,
        samples=drop.samples,
        needed=needed,
    )
