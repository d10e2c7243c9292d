"""Rounds of proposing and measuring, until a plan was measured to keep the budgets."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final, Protocol, final, runtime_checkable

from mpsearch.core.hardware import Resource
from mpsearch.core.placement import ground_told
from mpsearch.core.plan import Budget, Plan
from mpsearch.core.progress import Progress
from mpsearch.core.tables import CostTable
from mpsearch.errors import InfeasibleBudgetError
from mpsearch.formulation import (
    ParsedBudget,
    Yardsticks,
    plan_of,
    resolve_budgets,
    resource_of,
)
from mpsearch.search.candidates import SearchSpace, identity, propose
from mpsearch.search.references import pinned
from mpsearch.search.repair import joined_space, limits_at_profile_speed
from mpsearch.sensitivity.divergence import divergence_of
from mpsearch.verification.contest import Entry

_ROUNDS: Final = 4
# A reference whose earlier timing missed the limit by less than this may keep it head to head.
_REFERENCE_ROOM: Final = 1.05
# That many of the fastest references run along, as yardsticks of relative budgets.
_YARDSTICKS: Final = 2


@runtime_checkable
class HoldsContests(Protocol):
    """Whatever builds plans and measures them against each other."""

    def hold(
        self,
        plans: Sequence[Plan],
        *,
        is_timed: bool = True,
        progress: Progress | None = None,
    ) -> tuple[Entry, ...]:
        """Return one entry per plan, in their order; without latency unless `is_timed`."""


@final
@dataclass(frozen=True, kw_only=True)
class Judged:
    """A measured plan with the limits of its contest, in which relative budgets are ratios.

    `drift` says how many times longer the contest's references took than when the cost
    tables were measured: a processor that is shared or throttled is not always as fast.
    `left_out` says why a plan that was judged took no part in the last contest.
    """

    entry: Entry
    budgets: tuple[Budget, ...]
    is_reference: bool
    drift: float = 1.0
    round: int = 1
    left_out: str = ""

    @property
    def keeps(self) -> bool:
        """Return whether every budget was measured to be kept, and nothing else ruled it out."""
        amount = self.entry.amount
        return not (self.entry.broken or self.left_out) and all(
            amount[resource_of(budget)] <= budget.limit for budget in self.budgets
        )

    @property
    def merit(self) -> float:
        """Return what plans are ranked by: the KL of predictions, else the loss."""
        quality = self.entry.quality
        if quality is None:
            return float("inf")
        return divergence_of(quality.loss, fidelity=quality.fidelity)

    @property
    def loss(self) -> float:
        """Return the measured validation loss; infinite for a plan that did not build."""
        return float("inf") if self.entry.quality is None else self.entry.quality.loss


def search_rounds(
    space: SearchSpace,
    *,
    contest: HoldsContests,
    parsed: tuple[ParsedBudget, ...],
    yardsticks: Yardsticks,
    progress: Progress | None = None,
) -> tuple[Judged, ...]:
    """Return everything measured, the winner first.

    The winner has the least validation divergence (the KL of predictions where there are
    logits, else the loss) among the plans that were measured to keep all budgets; of equal
    ones the faster. Candidates and references take part in the same
    contest. Where none keeps them, what was timed joins the fit of the cost tables and the
    problem is solved again; so it is, with that plan cut off, where one that was promised to lose
    less did not build or gave other numbers than its simulation. There are at most four
    contests; `Judged.round` says which one a plan took part in. Where the tables hold no plan,
    references that kept the budgets when they were timed are contest enough.

    Raises:
        InfeasibleBudgetError: The tables hold no plan, or none kept the budgets when measured.
    """
    budgets = limits = resolve_budgets(parsed, yardsticks=yardsticks)
    rivals, has_likely = _references(space, budgets=budgets)
    seen: list[Judged] = []
    told = space
    for number in range(1, _ROUNDS + 1):
        plans = _unknown(told, limits=limits, seen=seen, has_others=has_likely or bool(seen))
        new = _with_suggested(plans, space=space, budgets=budgets) if not seen else plans
        if not new and seen:
            break
        field = _distinct([*new, *(rivals if not seen else rivals[:_YARDSTICKS])])
        entries = contest.hold(field, progress=progress)
        judged = judge(
            entries, space=space, parsed=parsed, yardsticks=yardsticks, contest_round=number
        )
        seen += judged
        if not any(each.keeps for each in seen):
            told, limits = joined_space(told, judged), limits_at_profile_speed(judged[0])
        elif not _is_worth_replacing(judged, seen=seen):
            break
    if not any(each.keeps for each in seen):
        raise _none_kept(seen, budgets=budgets)
    return tuple(sorted(seen, key=_order))


def _unknown(
    space: SearchSpace,
    *,
    limits: Sequence[Budget],
    seen: Sequence[Judged],
    has_others: bool,
) -> tuple[Plan, ...]:
    """Return proposals that no contest has seen; none where the tables hold no plan.

    Raises:
        InfeasibleBudgetError: They hold none, and there is nothing else to build.
    """
    # A fit comes near to what it was told, never quite: what missed must not be proposed again.
    missed = [judged.entry.plan for judged in seen if not judged.keeps]
    try:
        plans = propose(space, budgets=limits, forbidden=missed)
    except InfeasibleBudgetError:
        if not has_others:
            raise
        return ()
    known = {identity(judged.entry.plan) for judged in seen}
    return tuple(plan for plan in plans if identity(plan) not in known)


def _is_worth_replacing(judged: Sequence[Judged], *, seen: Sequence[Judged]) -> bool:
    """Return whether a plan broke that was promised to lose less than every one that holds."""
    promised = [
        each.entry.plan.forecast["loss"]
        for each in judged
        if each.entry.broken and not each.is_reference
    ]
    held = [each.entry.plan.forecast["loss"] for each in seen if each.keeps]
    return bool(promised) and min(promised) < min(held)


def _with_suggested(
    plans: Sequence[Plan], *, space: SearchSpace, budgets: Sequence[Budget]
) -> tuple[Plan, ...]:
    """Put what was verified better before the optima of the tables, or in their place.

    Where latency is limited, a forecast may fail, so the others stay in the contest.
    """
    if space.suggest is None or not plans:
        return tuple(plans)
    first = (plans[0].base, plans[0].placement)
    (cost,) = (each for each in space.costs if (each.base, each.placement) == first)
    suggested = space.suggest(cost, budgets)
    is_timed = any(resource_of(budget).startswith(Resource.LATENCY_NS) for budget in budgets)
    if suggested and not is_timed:
        return suggested[:1]
    return tuple(_distinct([*suggested, *plans]))


def _references(space: SearchSpace, *, budgets: Sequence[Budget]) -> tuple[list[Plan], bool]:
    """Return the fastest references, then those that may keep the budgets, if there are any.

    A reference that was timed may keep a limit that no sum of table entries reaches.
    """
    measured = [
        (amount, plan_of(space.sensitivity, cost, assignment=assignment,
                         budgets=budgets, origin=_name(assignment, cost=cost)))
        for cost in space.costs
        for assignment, amount in _pinned_references(cost, fixed=space.fixed)
    ]  # fmt: skip
    fastest = sorted(measured, key=lambda item: item[0].get(Resource.LATENCY_NS, 0.0))
    likely = [
        plan
        for amount, plan in fastest
        if all(
            {**plan.forecast, **amount}[resource_of(budget)]
            <= budget.limit * _room(resource_of(budget))
            for budget in budgets
        )
    ]
    return _distinct([*(plan for _, plan in fastest[:_YARDSTICKS]), *likely]), bool(likely)


def _pinned_references(
    cost: CostTable, *, fixed: Mapping[str, str]
) -> list[tuple[dict[str, str], Mapping[str, float]]]:
    """Return reference plans with what was measured of them: nothing where a pin changed one."""
    found = []
    for plan in cost.measured:
        if plan.role == "reference":
            assignment = pinned(plan.assignment, fixed=fixed, base=plan.base)
            found.append((assignment, plan.amount if assignment == plan.assignment else {}))
    return found


def _name(assignment: Mapping[str, str], *, cost: CostTable) -> str:
    counts = Counter(assignment.values())
    formats = ", ".join(f"{name} for {count} layers" for name, count in counts.most_common())
    return f"reference: {formats}, {ground_told(cost.base, cost.placement)}"


def _room(resource: str) -> float:
    return _REFERENCE_ROOM if resource.startswith(Resource.LATENCY_NS) else 1.0


def _distinct(plans: Sequence[Plan]) -> list[Plan]:
    return list({identity(plan): plan for plan in reversed(plans)}.values())[::-1]


def judge(
    entries: Sequence[Entry],
    *,
    space: SearchSpace,
    parsed: tuple[ParsedBudget, ...],
    yardsticks: Yardsticks,
    contest_round: int = 1,
) -> list[Judged]:
    """Return entries of one contest with its limits, and how the machine has drifted since."""
    profiled, known = _profiled(space), reference_identities(space)
    timed = {
        identity(entry.plan): entry.latency.median_ns
        for entry in entries
        if entry.latency is not None and identity(entry.plan) in profiled
    }
    references = [entry.amount for entry in entries if identity(entry.plan) in timed]
    fastest = {
        name: min((amount[name] for amount in references), default=before)
        for name, before in yardsticks.fastest.items()
    }
    limits = resolve_budgets(
        parsed,
        yardsticks=Yardsticks(
            full_precision=yardsticks.full_precision, fastest=fastest, weights=yardsticks.weights
        ),
    )
    drift = median([time / profiled[plan] for plan, time in timed.items()] or [1.0])
    return [
        Judged(
            entry=entry,
            budgets=limits,
            is_reference=identity(entry.plan) in known,
            drift=drift,
            round=contest_round,
        )
        for entry in entries
    ]


def reference_identities(space: SearchSpace) -> set[tuple[object, ...]]:
    """Return what the reference plans of all tables are told by."""
    return {
        (cost.base, cost.placement, *assignment.items())
        for cost in space.costs
        for assignment, _ in _pinned_references(cost, fixed=space.fixed)
    }


def _profiled(space: SearchSpace) -> dict[tuple[object, ...], float]:
    """Return the latency of each reference plan as it was when the tables were measured."""
    return {
        (plan.base, plan.placement, *plan.assignment.items()): plan.amount[Resource.LATENCY_NS]
        for cost in space.costs
        for plan in cost.measured
        if plan.role == "reference" and Resource.LATENCY_NS in plan.amount
    }


def _order(judged: Judged) -> tuple[bool, float, float]:
    latency = judged.entry.amount.get(Resource.LATENCY_NS, 0.0)
    return not judged.keeps, judged.merit, latency


def _none_kept(seen: Sequence[Judged], *, budgets: Sequence[Budget]) -> InfeasibleBudgetError:
    built = [judged for judged in seen if not judged.entry.broken]
    reasons = [judged.entry.broken for judged in seen if judged.entry.broken]
    if not built:
        return InfeasibleBudgetError(
            f"None of {len(seen)} plans could be built; the first failed with: {reasons[0]} "
            "Expected a plan that builds. Fix that layer in another format.",
            smallest={},
        )
    smallest = {
        budget.name: min(judged.entry.amount[resource_of(budget)] for judged in built)
        for budget in budgets
    }
    reached = ", ".join(
        f"{name} {value:,.0f} {budget.unit}, limit {budget.limit:,.0f}"
        for (name, value), budget in zip(smallest.items(), budgets, strict=True)
    )
    return InfeasibleBudgetError(
        f"None of {len(built)} plans that were built kept every budget when measured (the "
        f"smallest measured, each alone: {reached}). Expected the forecast to hold. "
        "Raise a budget by some percent, or try again on a quieter machine.",
        smallest=smallest,
    )
