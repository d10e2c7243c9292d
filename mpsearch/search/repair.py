"""Where measured plans miss the budgets: what was measured joins the fit, in the tables' units."""

from collections.abc import Sequence
from dataclasses import replace
from statistics import median
from typing import Protocol, runtime_checkable

from mpsearch.core.hardware import Resource
from mpsearch.core.plan import Budget
from mpsearch.core.tables import MeasuredPlan
from mpsearch.cost.joined_fit import with_measurements
from mpsearch.formulation import resource_of
from mpsearch.search.candidates import SearchSpace
from mpsearch.verification.contest import Entry

_ROLE = "candidate"


@runtime_checkable
class JudgedLike(Protocol):
    """A measured plan with the limits and the drift of its contest."""

    @property
    def entry(self) -> Entry: ...  # noqa: D102 - named as what it holds

    @property
    def budgets(self) -> tuple[Budget, ...]: ...  # noqa: D102 - the same

    @property
    def drift(self) -> float: ...  # noqa: D102 - the same

    @property
    def round(self) -> int: ...  # noqa: D102 - the same

    @property
    def keeps(self) -> bool: ...  # noqa: D102 - the same


def joined_space(space: SearchSpace, judged: Sequence[JudgedLike]) -> SearchSpace:
    """Return the space with every timed plan of a contest joined to the fit of its table.

    Times are divided by the contest's drift: the tables speak of the machine as it was.
    """
    costs = tuple(
        with_measurements(
            cost,
            [
                measured_plan(each)
                for each in judged
                if each.entry.latency is not None
                and (each.entry.plan.base, each.entry.plan.placement) == (cost.base, cost.placement)
            ],
        )
        for cost in space.costs
    )
    return replace(space, costs=costs)


def measured_plan(judged: JudgedLike) -> MeasuredPlan:
    """Return a plan of a contest as a cost table keeps it, at the speed of the profile."""
    entry = judged.entry
    assert entry.latency is not None
    times = {
        name: value / judged.drift
        for name, value in entry.amount.items()
        if name.startswith(Resource.LATENCY_NS)
    }
    errors = {"latency_stderr_ns": entry.latency.stderr_ns / judged.drift} | {
        name.replace(Resource.LATENCY_NS, "latency_stderr_ns", 1): each.stderr_ns / judged.drift
        for name, each in entry.each.items()
    }
    return MeasuredPlan(
        assignment=entry.plan.assignment,
        base=entry.plan.base,
        placement=entry.plan.placement,
        amount=times | errors,
        role=_ROLE,
    )


def limits_at_profile_speed(judged: JudgedLike) -> tuple[Budget, ...]:
    """Return the limits of a contest for tables of the machine as fast as it was."""
    return tuple(
        replace(budget, limit=budget.limit / judged.drift)
        if resource_of(budget).startswith(Resource.LATENCY_NS)
        else budget
        for budget in judged.budgets
    )


def repairs_told(tried: Sequence[JudgedLike]) -> tuple[str, ...]:
    """Say in a sentence for each round that no plan survived what it missed and what followed."""
    told = []
    for number in sorted({each.round for each in tried}):
        plans = [each for each in tried if each.round == number]
        if any(each.keeps for each in plans):
            continue
        broken = sum(bool(each.entry.broken) for each in plans)
        told.append(
            f"Contest {number}: of {len(plans)} plans {broken} did not build and none kept every "
            f"budget{_nearest(plans)}. Their times joined the fit of the cost tables"
            f"{_misfit(plans)}, plans that did not build were cut off, and the problem was "
            "solved again."
        )
    return tuple(told)


def _nearest(plans: Sequence[JudgedLike]) -> str:
    excess = {
        each.entry.plan.origin: max(
            each.entry.amount[resource_of(budget)] / budget.limit - 1 for budget in each.budgets
        )
        for each in plans
        if not each.entry.broken and each.budgets
    }
    if not excess:
        return ""
    name = min(excess, key=lambda origin: excess[origin])
    return f" (the nearest, {name}, was {excess[name]:.1%} over)"


def _misfit(plans: Sequence[JudgedLike]) -> str:
    errors = [
        abs(each.entry.plan.forecast[name] / time - 1)
        for each in plans
        if each.entry.latency is not None
        for name, time in measured_plan(each).amount.items()
        if name in each.entry.plan.forecast
    ]
    return f", whose forecasts were {median(errors):.1%} off" if errors else ""
