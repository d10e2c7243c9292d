"""The plans of a job that a person can pick: returned, measured, optimal, or solved on the spot.

A pick is a text that stands in addresses: `returned`, `tried-2`, `front-5`, or `limit-140`, the
optimum under the first budget at that place of the slider.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final, final

import numpy as np

from mpsearch.api.pages.result import Result, cost_table
from mpsearch.core.plan import Budget, Plan
from mpsearch.core.tables import CostTable
from mpsearch.errors import AbsentError
from mpsearch.formulation import plan_of
from mpsearch.report.front import is_same, resource_of
from mpsearch.report.layers import title_of, unit_of
from mpsearch.report.numbers import amount
from mpsearch.report.tried import TriedPlan
from mpsearch.workflow.solve import FrontPoint, solve_within

RETURNED: Final = "returned"
# As fine as a finger on a phone can tell apart.
STEPS: Final = 200
_PICK: Final = re.compile(r"(?P<kind>returned|tried|front|limit)(?:-(?P<place>\d{1,4}))?")
# Going back and forth on the slider solves nothing again.
_SOLVED: Final = 256
_KEPT: Final = 16


@final
@dataclass(frozen=True, kw_only=True)
class Choice:
    """A plan with what it is called; `measured` is None where it was not built.

    `forecast` is that of the tables, so that plans compare: the plan's own may have been
    brought up to what the device did while it was timed.
    """

    pick: str
    title: str
    plan: Plan
    forecast: Mapping[str, float]
    measured: TriedPlan | None


@final
@dataclass(frozen=True, kw_only=True)
class Slider:
    """The limits that the first budget can be moved to, least first, and where it is now."""

    name: str
    title: str
    limits: tuple[float, ...]
    labels: tuple[str, ...]
    place: int


@lru_cache(maxsize=_KEPT)
def choices_of(result: Result) -> Mapping[str, Choice]:
    """Return every plan that was measured or solved by the search, by its pick."""
    found = [_choice(result, result.plan, pick=RETURNED, title="returned plan")]
    for place, tried in enumerate(result.summary.tried):
        if not tried.broken and not is_same(tried.plan, result.plan):
            title = _with_base(tried.plan.origin or "plan", base=tried.plan.base)
            found.append(_choice(result, tried.plan, pick=f"tried-{place}", title=title))
    for place, point in enumerate(result.summary.front):
        found.append(_optimum(result, point, pick=f"front-{place}"))
    return {choice.pick: choice for choice in found}


def choice_named(result: Result, pick: str) -> Choice:
    """Return the plan of a pick; one of the slider is solved now.

    Raises:
        AbsentError: There is none of this name.
        InfeasibleBudgetError: No plan keeps the limit.
    """
    match = _PICK.fullmatch(pick)
    slider = slider_of(result)
    if match is not None and match["kind"] == "limit" and slider is not None:
        place = int(match["place"] or STEPS)
        if place <= STEPS:
            return _solved(result, slider=slider, place=place)
    found = choices_of(result).get(pick)
    if found is None:
        raise AbsentError(
            f"Plan {pick!r} is not known. Expected one that the page shows. Load the page again."
        )
    return found


def varied(result: Result) -> str:
    """Return the resource that the front is over."""
    return resource_of(Budget(name=result.varies, text="", limit=0.0, unit=""))


def present_limit(result: Result) -> float | None:
    """Return the limit of what the front varies, None where there was none."""
    limits = [budget.limit for budget in result.plan.budgets if budget.name == result.varies]
    return limits[0] if limits else None


def slider_of(result: Result) -> Slider | None:
    """Return the limits between the ends of the front, None where it has no two points."""
    front, resource = result.summary.front, varied(result)
    is_solvable = all(resource in cost.amount for cost in result.costs)
    if len(front) < 2 or not is_solvable:  # noqa: PLR2004 - a span has two ends
        return None
    limits = np.linspace(front[0].limit, front[-1].limit, STEPS + 1)
    present = present_limit(result)
    spent = result.plan.forecast.get(resource, limits[-1]) if present is None else present
    return Slider(
        name=result.varies,
        title=title_of(resource),
        limits=tuple(float(limit) for limit in np.ceil(limits)),
        labels=tuple(amount(float(limit), unit=unit_of(resource)) for limit in limits),
        place=int(np.abs(limits - spent).argmin()),
    )


def _choice(result: Result, plan: Plan, *, pick: str, title: str) -> Choice:
    cost = result.cost_of(plan)
    forecast = (
        plan.forecast
        if cost is None
        else _planned(result, cost, assignment=plan.assignment, title=title).forecast
    )
    measured = next((each for each in result.summary.tried if is_same(each.plan, plan)), None)
    return Choice(pick=pick, title=title, plan=plan, forecast=forecast, measured=measured)


def _planned(result: Result, cost: CostTable, *, assignment: Mapping[str, str], title: str) -> Plan:
    return plan_of(
        result.sensitivity,
        cost,
        assignment=assignment,
        budgets=result.plan.budgets,
        origin=title,
    )


def _optimum(result: Result, point: FrontPoint, *, pick: str) -> Choice:
    resource = varied(result)
    limit = amount(point.spend.get(resource, point.limit), unit=unit_of(resource))
    cost = cost_table(result.costs, base=point.base, placement=point.placement)
    if cost is None:
        raise AbsentError(
            f"The tables of base {point.base!r} are not in the result. Expected those that its "
            "front was solved from. Post the job again."
        )
    title = f"optimum at {limit} ({point.base})"
    plan = _planned(result, cost, assignment=point.assignment, title=title)
    return _choice(result, plan, pick=pick, title=title)


def _solved(result: Result, *, slider: Slider, place: int) -> Choice:
    kept = [
        budget
        for budget in result.plan.budgets
        if budget.name != slider.name
        and all(resource_of(budget) in cost.amount for cost in result.costs)
    ]
    unit = unit_of(varied(result))
    moved = Budget(name=slider.name, text="", limit=slider.limits[place], unit=unit)
    plan = _plan_within(result, (moved, *kept))
    title = f"optimum at most {slider.labels[place]} ({plan.base})"
    return _choice(result, replace(plan, origin=title), pick=f"limit-{place}", title=title)


def _with_base(title: str, *, base: str) -> str:
    return title if f"base {base}" in title else f"{title} ({base})"


@lru_cache(maxsize=_SOLVED)
def _plan_within(result: Result, limits: tuple[Budget, ...]) -> Plan:
    return solve_within(result.sensitivity, result.costs, limits=limits).plan
