"""The winner is the best that was measured to keep the budgets, whatever was forecast."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from mpsearch.core.hardware import Device, Support
from mpsearch.core.plan import ActivationQuantizer, Budget, Plan
from mpsearch.core.progress import Progress
from mpsearch.core.tables import CostTable, MeasuredPlan, SensitivityTable
from mpsearch.errors import InfeasibleBudgetError
from mpsearch.formulation import Yardsticks, parse_budgets, plan_of
from mpsearch.search import Judged, SearchSpace, search_rounds
from mpsearch.search.repair import joined_space, limits_at_profile_speed, repairs_told
from mpsearch.verification.contest import Entry, Latency
from mpsearch.verification.quality import Quality

LAYERS = ("a", "b", "c", "d")
FORMATS = ("fp32", "w8a8")
# 100 ns each in fp32 and 50 in w8a8; the fastest reference takes 200.
QUANTIZER = ActivationQuantizer(
    scale=0.1, zero_point=128, low=-12.8, high=12.7, method="mse", samples=8
)
YARDSTICKS = Yardsticks(full_precision={}, fastest={"latency_ns": 200.0}, weights=4)


def never(plan: Plan) -> bool:
    """Say that a plan builds."""
    return plan.schema_version == 0


def as_forecast(plan: Plan) -> float:
    """Return the loss that was promised."""
    return plan.forecast["loss"]


@dataclass
class FakeContest:
    """Measures forecasts times a factor; a plan may break, its loss may be anything."""

    slower: float = 1.0
    reference_slower: float = 1.0
    breaks: Callable[[Plan], bool] = never
    loss: Callable[[Plan], float] = as_forecast
    time: Callable[[Plan], float] | None = None
    held: list[list[Plan]] = field(default_factory=list)

    def hold(
        self,
        plans: Sequence[Plan],
        *,
        is_timed: bool = True,  # noqa: ARG002  # as a contest's
        progress: Progress | None = None,
    ) -> tuple[Entry, ...]:
        assert progress is None
        self.held.append(list(plans))
        return tuple(self._entry(plan) for plan in plans)

    def _entry(self, plan: Plan) -> Entry:
        if self.breaks(plan):
            return Entry(plan=plan, broken="does not compile")
        is_reference = set(plan.assignment.values()) == {"w8a8"}
        factor = self.reference_slower if is_reference else self.slower
        time = plan.forecast["latency_ns"] * factor if self.time is None else self.time(plan)
        return Entry(
            plan=plan,
            latency=Latency(median_ns=time, stderr_ns=1.0, repeatability=0.01),
            quality=Quality(loss=self.loss(plan), stderr=0.0, samples=8),
        )


def space() -> SearchSpace:
    """Return four layers whose losses differ, so that each budget has one optimum."""
    reference = MeasuredPlan(
        assignment=dict.fromkeys(LAYERS, "w8a8"),
        base="fp32",
        placement="layer_inputs",
        amount={"latency_ns": 200.0},
        role="reference",
    )
    cost = CostTable(
        layers=LAYERS,
        formats=FORMATS,
        base="fp32",
        placement="layer_inputs",
        amount={"latency_ns": np.array([[100, 50]] * 4)},
        constant={"latency_ns": 0},
        support=((Support.NATIVE,) * 2,) * 4,
        measured=(reference,),
        device=Device(name="test", runtime="simulation", threads=1),
    )
    table = SensitivityTable(
        layers=LAYERS,
        formats=("w4", "w8a8"),
        loss=np.array([[9.0, 1.0], [9.0, 2.0], [9.0, 4.0], [9.0, 8.0]]),
        stderr=np.zeros((4, 2)),
        metric="output_error",
        unit="squared output",
        quantizers=dict.fromkeys(LAYERS, QUANTIZER),
    )
    return SearchSpace(sensitivity=table, costs=(cost,))


def rounds(contest: FakeContest, text: str = "150% of fastest") -> tuple[Judged, ...]:
    """Search under one budget on latency: 300 ns by default, two layers in w8a8."""
    return search_rounds(
        space(),
        contest=contest,
        parsed=parse_budgets({"latency": text}),
        yardsticks=YARDSTICKS,
    )


def test_the_optimum_wins_where_the_forecast_holds() -> None:
    tried = rounds(FakeContest())
    assert tried[0].keeps
    assert tried[0].loss == 3.0
    assert tried[0].entry.plan.assignment == {"a": "w8a8", "b": "w8a8", "c": "fp32", "d": "fp32"}


def test_a_plan_measured_better_wins_over_the_one_forecast_better() -> None:
    def upside_down(plan: Plan) -> float:
        return -plan.forecast["loss"]

    tried = rounds(FakeContest(loss=upside_down))
    kept = [judged for judged in tried if judged.keeps]
    assert tried[0].loss == min(judged.loss for judged in kept)
    assert tried[0].loss < -3.0


def test_a_reference_that_measures_best_is_returned() -> None:
    def reference_is_perfect(plan: Plan) -> float:
        return 0.0 if plan.origin.startswith("reference") else 1.0

    assert rounds(FakeContest(loss=reference_is_perfect))[0].is_reference


def test_where_forecasts_are_too_short_the_limit_is_tightened_until_a_plan_fits() -> None:
    contest = FakeContest(slower=1.19)
    tried = rounds(contest, text="130% of fastest")
    assert tried[0].keeps
    assert all(j.entry.amount["latency_ns"] <= 260.0 for j in tried if j.keeps)


def search_where_a_is_no_faster() -> tuple[FakeContest, tuple[Judged, ...]]:
    """Search where layer a is no faster in w8a8, whatever the profile said."""

    def measured(plan: Plan) -> float:
        return sum(
            50.0 if name == "w8a8" and layer != "a" else 100.0
            for layer, name in plan.assignment.items()
        )

    contest = FakeContest(time=measured)
    costs = tuple(replace(cost, measured=()) for cost in space().costs)
    return contest, search_rounds(
        replace(space(), costs=costs),
        contest=contest,
        parsed=parse_budgets({"latency": "290ns"}),
        yardsticks=YARDSTICKS,
    )


def test_what_was_timed_joins_the_fit_and_another_layer_is_chosen() -> None:
    contest, tried = search_where_a_is_no_faster()
    assert tried[0].keeps
    assert len(contest.held) > 1
    assert tried[0].entry.plan.assignment["a"] == "fp32"
    assert tried[0].round == len(contest.held)
    assert not any(judged.keeps for judged in tried if judged.round == 1)
    # Its forecast, 250 ns before, is that of the table that has learnt what a, b and c share.
    assert 260 < tried[0].entry.plan.forecast["latency_ns"] <= 290


def test_what_missed_is_not_proposed_again_however_little_it_missed_by() -> None:
    """Plans with a miss by .001 ns, less than what the fit leaves of an error."""

    def slow_with_a(plan: Plan) -> float:
        return plan.forecast["latency_ns"] + (0.3 if plan.assignment["a"] == "w8a8" else 0.0)

    def is_reference(plan: Plan) -> bool:
        return set(plan.assignment.values()) == {"w8a8"}

    contest = FakeContest(time=slow_with_a, breaks=is_reference)
    tried = rounds(contest, text="250.299ns")
    assert tried[0].keeps
    assert tried[0].entry.plan.assignment == {"a": "fp32", **dict.fromkeys("bcd", "w8a8")}
    proposed = [
        tuple(plan.assignment.items())
        for held in contest.held
        for plan in held
        if not is_reference(plan)
    ]
    assert len(set(proposed)) == len(proposed)


def test_rounds_end() -> None:
    contest = FakeContest(slower=3.0, reference_slower=3.0)
    with pytest.raises(InfeasibleBudgetError):
        rounds(contest, text="250ns")
    assert 1 <= len(contest.held) <= 4


def test_the_drift_of_a_contest_is_no_fault_of_the_table() -> None:
    """All take twice as long and the limit allows for it: nothing is to be learnt."""
    contest = FakeContest(slower=2.0, reference_slower=2.0)
    tried = rounds(contest, text="599ns")
    joined = joined_space(space(), tried)
    for before, after in zip(space().costs, joined.costs, strict=True):
        np.testing.assert_array_equal(after.amount["latency_ns"], before.amount["latency_ns"])
    assert limits_at_profile_speed(tried[0])[0].limit == pytest.approx(599 / 2)


def test_each_round_without_a_plan_is_told() -> None:
    assert repairs_told(rounds(FakeContest())) == ()
    contest, tried = search_where_a_is_no_faster()
    told = repairs_told(tried)
    assert len(told) == len(contest.held) - 1
    assert told[0].startswith("Contest 1: of 3 plans 0 did not build")
    assert "3.4% over" in told[0]  # 300 of 290 ns
    assert "16.7% off" in told[0]  # 250 forecast of 300


def test_a_relative_limit_follows_the_yardstick_of_the_same_contest() -> None:
    tried = rounds(FakeContest())
    assert all(judged.budgets[0].limit == pytest.approx(300.0) for judged in tried)
    assert any(judged.is_reference for judged in tried)


def test_the_drift_of_the_machine_is_read_off_the_references() -> None:
    assert all(judged.drift == pytest.approx(1.0) for judged in rounds(FakeContest()))
    slower = rounds(FakeContest(slower=1.3, reference_slower=1.3))
    assert slower[0].drift == pytest.approx(1.3)
    # The relative limit moves along, so that the same plans keep it.
    assert slower[0].budgets[0].limit == pytest.approx(1.3 * 300.0)


def test_a_plan_that_does_not_build_is_left_out_and_replaced() -> None:
    def optimum_breaks(plan: Plan) -> bool:
        return plan.forecast["loss"] == 3.0

    contest = FakeContest(breaks=optimum_breaks)
    tried = rounds(contest)
    assert tried[0].keeps
    assert not tried[0].entry.broken
    assert [judged.entry.broken for judged in tried if judged.entry.broken]


def test_plans_that_break_are_cut_off_and_the_problem_is_solved_again() -> None:
    """Layer a breaks every plan in which it is quantised: no room for it in the tables."""

    def a_breaks(plan: Plan) -> bool:
        return plan.assignment["a"] == "w8a8" and "fp32" in plan.assignment.values()

    contest = FakeContest(breaks=a_breaks)
    tried = rounds(contest)
    assert len(contest.held) == 2
    assert tried[0].keeps
    # b and c lose 6, more than a with any other; the reference loses 15.
    assert tried[0].entry.plan.assignment == {"a": "fp32", "b": "w8a8", "c": "w8a8", "d": "fp32"}
    proposed = [tuple(p.assignment.items()) for held in contest.held for p in held]
    broken = [tuple(j.entry.plan.assignment.items()) for j in tried if j.entry.broken]
    assert len(broken) == len(set(broken)) >= 2
    assert all(proposed.count(each) == 1 for each in broken)


def test_a_broken_plan_that_promised_no_more_needs_no_other() -> None:
    def leanest_breaks(plan: Plan) -> bool:
        return plan.forecast["loss"] > 3.0 and not plan.origin.startswith("reference")

    contest = FakeContest(breaks=leanest_breaks)
    assert rounds(contest)[0].loss == 3.0
    assert len(contest.held) == 1


def test_a_reference_that_was_timed_within_the_budget_answers_where_the_tables_cannot() -> None:
    """All w8a8 is forecast at 300 ns and was timed at 200."""
    (cost,) = space().costs
    slow = replace(cost, constant={"latency_ns": 100})
    tried = search_rounds(
        replace(space(), costs=(slow,)),
        contest=FakeContest(time=lambda _: 200.0),
        parsed=parse_budgets({"latency": "120% of fastest"}),
        yardsticks=YARDSTICKS,
    )
    assert tried[0].keeps
    assert tried[0].is_reference
    with pytest.raises(InfeasibleBudgetError, match="smallest reachable"):
        search_rounds(
            replace(space(), costs=(slow,)),
            contest=FakeContest(),
            parsed=parse_budgets({"latency": "60% of fastest"}),
            yardsticks=YARDSTICKS,
        )


def test_none_that_keeps_the_budget_is_an_error_with_what_was_reached() -> None:
    with pytest.raises(InfeasibleBudgetError, match="when measured") as caught:
        rounds(FakeContest(slower=3.0, reference_slower=3.0), text="201ns")
    assert caught.value.smallest["latency"] == pytest.approx(600.0)


def test_none_that_builds_says_why() -> None:
    def always(plan: Plan) -> bool:
        return plan.schema_version > 0

    with pytest.raises(InfeasibleBudgetError, match="does not compile"):
        rounds(FakeContest(breaks=always))


def test_what_was_verified_better_joins_the_contest_once() -> None:
    """Where latency is limited the optimum of the tables stays in, for forecasts may fail."""
    asked: list[tuple[CostTable, tuple[Budget, ...]]] = []

    def suggest(cost: CostTable, budgets: Sequence[Budget]) -> tuple[Plan, ...]:
        asked.append((cost, tuple(budgets)))
        names = {"a": "fp32", "b": "fp32", "c": "w8a8", "d": "w8a8"}
        table = space().sensitivity
        return (plan_of(table, cost, assignment=names, budgets=budgets, origin="suggested"),)

    def suggested_is_best(plan: Plan) -> float:
        return 0.0 if plan.origin == "suggested" else 1.0

    contest = FakeContest(loss=suggested_is_best)
    tried = search_rounds(
        replace(space(), suggest=suggest),
        contest=contest,
        parsed=parse_budgets({"latency": "150% of fastest"}),
        yardsticks=YARDSTICKS,
    )
    assert tried[0].entry.plan.origin == "suggested"
    assert len(asked) == 1
    assert asked[0][1][0].limit == pytest.approx(300.0)
    assert any(plan.origin.startswith("optimum") for plan in contest.held[0])


def test_predictions_are_ranked_by_their_divergence() -> None:
    quality = Quality(loss=1.0, stderr=0.0, samples=8, fidelity={"kl": 0.25, "agreement": 0.9})
    judged = Judged(
        entry=Entry(plan=Plan(assignment={}), quality=quality), budgets=(), is_reference=False
    )
    assert (judged.merit, judged.loss) == (0.25, 1.0)
