"""Promises beside measurements: the headline, budgets, verification rows and rival plans."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

from mpsearch.core.plan import Budget, Plan
from mpsearch.core.verification import Verification
from mpsearch.report.front import is_same, resource_of
from mpsearch.report.layers import title_of, unit_of
from mpsearch.report.numbers import ABSENT, MINUS, TIMES, amount, plain
from mpsearch.report.scale import Scale, scale_of
from mpsearch.report.tried import TriedPlan

# The bar of a budget ends a little beyond its limit, so that an excess shows.
_BEYOND: Final = 1.12
_MIDDLE: Final = 50.0
_ZOOM: Final = 1.25
_Z_95: Final = 1.96  # 95 % of a normal distribution


@final
@dataclass(frozen=True, kw_only=True)
class BudgetView:
    """A budget as a bar: how much is used, where the forecast and the limit are."""

    title: str
    text: str
    limit: str
    used: str
    slack: str
    used_percent: float
    forecast_percent: float | None
    limit_percent: float
    kept: bool
    is_measured: bool
    note: str


@final
@dataclass(frozen=True, kw_only=True)
class PromiseView:
    """One row of the proof; the percents place tolerance, forecast and measurement."""

    quantity: str
    predicted: str
    measured: str
    difference: str
    tolerance: str
    passed: bool
    is_promised: bool
    note: str
    device: str
    band: tuple[float, float] | None
    interval: tuple[float, float] | None
    dot: float | None


@final
@dataclass(frozen=True, kw_only=True)
class RivalView:
    """A plan that was built, with its loss on a common axis (percent)."""

    name: str
    base: str
    formats: str
    role: str
    amounts: tuple[str, ...]
    loss: str
    dot: float | None
    interval: tuple[float, float] | None
    verdict: str
    broken: str
    keeps: bool
    is_returned: bool


def budget_views(
    plan: Plan, *, verification: Sequence[Verification], tried: Sequence[TriedPlan]
) -> tuple[BudgetView, ...]:
    """Return each budget with what the plan was measured to use, or else forecast."""
    return tuple(
        _budget_view(
            budget,
            plan=plan,
            measured=_measured(budget, plan, verification=verification, tried=tried),
        )
        for budget in plan.budgets
    )


def _measured(
    budget: Budget,
    plan: Plan,
    *,
    verification: Sequence[Verification],
    tried: Sequence[TriedPlan],
) -> float | None:
    """Return the value of the proof, else that of the contest."""
    resource = resource_of(budget)
    for row in verification:
        if row.quantity in (budget.name, resource) and row.unit == budget.unit:
            return row.measured
    for each in tried:
        if is_same(each.plan, plan) and resource in each.amount:
            return each.amount[resource]
    return None


def _budget_view(budget: Budget, *, plan: Plan, measured: float | None) -> BudgetView:
    forecast = plan.forecast.get(resource_of(budget))
    used = measured if measured is not None else forecast if forecast is not None else math.nan
    full = max(budget.limit * _BEYOND, used if math.isfinite(used) else 0.0) or 1.0
    slack = budget.limit - used
    relation = "left" if slack >= 0 else "too much"
    return BudgetView(
        title=title_of(resource_of(budget)),
        text=budget.text,
        limit=amount(budget.limit, unit=budget.unit),
        used=amount(used, unit=budget.unit),
        slack=f"{amount(abs(slack), unit=budget.unit)} {relation}"
        if math.isfinite(slack)
        else ABSENT,
        used_percent=_percent(used, full),
        forecast_percent=None if forecast is None else _percent(forecast, full),
        limit_percent=_percent(budget.limit, full),
        kept=used <= budget.limit,
        is_measured=measured is not None,
        note=budget.note,
    )


def headlines(
    plan: Plan, *, budgets: Sequence[BudgetView], verification: Sequence[Verification]
) -> list[tuple[bool, str]]:
    """Return sentences for the top, each with whether it is good news."""
    promised = [row for row in verification if row.predicted is not None]
    broken = [row.quantity.replace("_", " ") for row in promised if not row.passed]
    found = [] if not budgets else [_budget_headline(plan, budgets=budgets)]
    if promised and not broken:
        found.append((True, f"All {len(promised)} forecasts held when measured."))
    elif promised:
        found.append(
            (
                False,
                f"{len(broken)} of {len(promised)} forecasts did not hold: {', '.join(broken)}.",
            )
        )
    return found


def _budget_headline(plan: Plan, *, budgets: Sequence[BudgetView]) -> tuple[bool, str]:
    count = {1: "the budget", 2: "both budgets"}.get(len(budgets), f"all {len(budgets)} budgets")
    how = "measured" if all(budget.is_measured for budget in budgets) else "forecast"
    over = [given.name for given, view in zip(plan.budgets, budgets, strict=True) if not view.kept]
    if over:
        return False, f"Over budget, as {how}: {', '.join(over)}."
    return True, f"Keeps {count}, as {how}."


def promise_views(verification: Sequence[Verification]) -> tuple[PromiseView, ...]:
    """Return the rows of the proof."""
    return tuple(map(_promise_view, verification))


def _promise_view(row: Verification) -> PromiseView:
    predicted = row.predicted
    difference = "" if predicted is None else _difference(row.measured, predicted, unit=row.unit)
    reach = _reach(row)
    return PromiseView(
        quantity=row.quantity.replace("_", " "),
        predicted=ABSENT if predicted is None else amount(predicted, unit=row.unit),
        measured=amount(row.measured, unit=row.unit),
        difference=difference,
        tolerance=ABSENT if row.tolerance is None else f"± {amount(row.tolerance, unit=row.unit)}",
        passed=row.passed,
        is_promised=predicted is not None or row.limit is not None,
        note=row.note,
        device=row.device,
        band=None
        if reach is None or row.tolerance is None
        else _span(-row.tolerance, row.tolerance, reach=reach),
        interval=None
        if reach is None or row.interval is None or predicted is None
        else _span(row.interval[0] - predicted, row.interval[1] - predicted, reach=reach),
        dot=None if reach is None or predicted is None else _place(row.measured - predicted, reach),
    )


def _difference(measured: float, predicted: float, *, unit: str) -> str:
    change = measured - predicted
    sign = MINUS if change < 0 else "+"
    if change == 0:
        return "exact"
    if predicted:
        return f"{sign}{abs(change / predicted) * 100:.1f} %"
    return f"{sign}{amount(abs(change), unit=unit)}"


def _reach(row: Verification) -> float | None:
    """Return how far from the forecast the small chart of a row reaches."""
    if row.predicted is None:
        return None
    sizes = [abs(row.measured - row.predicted), row.tolerance or 0.0]
    sizes += [abs(end - row.predicted) for end in row.interval or ()]
    return max(sizes) * _ZOOM or 1.0


def _place(offset: float, reach: float) -> float:
    return round(min(max(_MIDDLE + _MIDDLE * offset / reach, 0.0), 100.0), 3)


def _span(low: float, high: float, *, reach: float) -> tuple[float, float]:
    """Return left and width."""
    left = _place(low, reach)
    return left, round(_place(high, reach) - left, 3)


def rival_views(plan: Plan, *, tried: Sequence[TriedPlan]) -> tuple[RivalView, ...]:
    """Return every plan that was built, the returned one first, then by loss."""
    scale = scale_of(
        value
        for each in tried
        if each.loss is not None
        for value in (each.loss, each.loss + _Z_95 * each.stderr)
    )
    ranked = sorted(
        tried,
        key=lambda each: (
            not is_same(each.plan, plan),
            not each.keeps,
            math.inf if each.loss is None else each.loss,
        ),
    )
    return tuple(_rival_view(each, plan=plan, scale=scale) for each in ranked)


def _rival_view(each: TriedPlan, *, plan: Plan, scale: Scale) -> RivalView:
    is_returned = is_same(each.plan, plan)
    verdict = (
        "returned"
        if is_returned
        else "not built"
        if each.broken
        else each.left_out or ("keeps the budgets" if each.keeps else "over budget")
    )
    return RivalView(
        name=each.plan.origin or "plan",
        base=each.plan.base,
        formats=formats_of(each.plan),
        role="reference" if each.is_reference else "candidate",
        amounts=tuple(
            amount(each.amount.get(resource, math.nan), unit=unit_of(resource))
            for resource in resources_of(plan)
        ),
        loss=ABSENT if each.loss is None else f"{plain(each.loss)} ± {plain(_Z_95 * each.stderr)}",
        dot=None if each.loss is None else scale.percent(each.loss),
        interval=None if each.loss is None else _interval(each.loss, each.stderr, scale=scale),
        verdict=verdict,
        broken=each.broken,
        keeps=each.keeps,
        is_returned=is_returned,
    )


def _interval(loss: float, stderr: float, *, scale: Scale) -> tuple[float, float]:
    left = scale.percent(loss - _Z_95 * stderr)
    return left, round(scale.percent(loss + _Z_95 * stderr) - left, 3)


def resources_of(plan: Plan) -> tuple[str, ...]:
    """Return the resources worth a column: those that are budgeted, then bytes and latency."""
    wanted = [*(resource_of(budget) for budget in plan.budgets), "weight_bytes", "latency_ns"]
    return tuple(name for name in dict.fromkeys(wanted) if name in plan.forecast)


def formats_of(plan: Plan) -> str:
    """Return how many layers have which format."""
    counts = Counter(plan.assignment.values())
    return ", ".join(f"{count} {TIMES} {name}" for name, count in counts.most_common())


def reason(plan: Plan, *, tried: Sequence[TriedPlan]) -> str:
    """Say why this plan was returned and not another one."""
    kept = [each for each in tried if each.keeps]
    mine = next((each for each in kept if is_same(each.plan, plan)), None)
    if mine is None or mine.loss is None:
        return "This plan is the optimum of the tables. It was not measured against others."
    over = sum(not (each.keeps or each.left_out) for each in tried)
    rivals = [each for each in kept if each is not mine and each.loss is not None]
    rest = f"{over} did not keep the budgets" if over else "all kept the budgets"
    start = f"{len(tried)} plans were tried in the same rounds; {rest}."
    if not rivals:
        return f"{start} This one was the only one that kept every budget."
    second = min(rivals, key=lambda each: math.inf if each.loss is None else each.loss)
    assert second.loss is not None
    if second.loss < mine.loss:
        return (
            f"{start} This one loses {plain(mine.loss)}, more than {plain(second.loss)} of "
            f"{second.plan.origin or 'another plan'}, which kept every budget too."
        )
    return (
        f"{start} Of the {len(kept)} that kept every budget this one has the least loss on data "
        f"that the search has not seen: {plain(mine.loss)} against {plain(second.loss)} of the "
        f"next ({second.plan.origin or 'another plan'})."
    )


def _percent(value: float, full: float) -> float:
    return round(100 * min(max(value / full, 0.0), 1.0), 3) if math.isfinite(value) else 0.0
