"""Plans are certified from safe to lean, the first failure ends it, the leanest measured wins."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from mpsearch.core.hardware import Resource
from mpsearch.core.plan import Plan
from mpsearch.core.progress import Progress
from mpsearch.errors import BoundNotHeldError, DataError, DeploymentError
from mpsearch.formulation import Yardsticks, plan_of
from mpsearch.search import Certified, SearchSpace, search_within_drop
from mpsearch.tasks.drop import DropBound
from mpsearch.verification.contest import Entry, Latency
from mpsearch.verification.quality import Quality
from tests.unit.search.test_rounds import LAYERS, space

SAMPLES = 1_000


def in_w8a8(count: int) -> Plan:
    """Return the plan whose first layers are in w8a8: 50 ns less each, and more is lost."""
    known = space()
    return plan_of(
        known.sensitivity,
        known.costs[0],
        assignment={name: "w8a8" if place < count else "fp32" for place, name in enumerate(LAYERS)},
        budgets=(),
        origin=f"{count} layers",
    )


PLANS = tuple(in_w8a8(count) for count in range(5))


def count_of(plan: Plan) -> int:
    return sum(name == "w8a8" for name in plan.assignment.values())


@dataclass
class Judge:
    """Loses so many of 1,000 samples by the number of w8a8 layers; times as told."""

    lost: Callable[[int], int]
    time: Callable[[int], float] = lambda count: 400.0 - 50 * count
    breaks: tuple[int, ...] = ()
    asked: list[int] = field(default_factory=list)

    def hold(
        self,
        plans: Sequence[Plan],
        *,
        is_timed: bool = True,
        progress: Progress | None = None,
    ) -> tuple[Entry, ...]:
        assert progress is None
        if not is_timed:
            self.asked += [count_of(plan) for plan in plans]
        return tuple(self._entry(plan, is_timed=is_timed) for plan in plans)

    def _entry(self, plan: Plan, *, is_timed: bool) -> Entry:
        count = count_of(plan)
        if count in self.breaks:
            return Entry(plan=plan, broken="does not compile")
        latency = Latency(median_ns=self.time(count), stderr_ns=1.0, repeatability=0.01)
        differences = np.repeat([1.0, 0.0], [self.lost(count), SAMPLES - self.lost(count)])
        return Entry(
            plan=plan,
            latency=latency if is_timed else None,
            quality=Quality(
                loss=0.0, stderr=0.0, samples=SAMPLES, differences={"accuracy": differences}
            ),
        )


def certified(
    judge: Judge,
    *,
    bound: float = 0.01,
    measure: str | None = None,
    known: SearchSpace | None = None,
) -> Certified:
    return search_within_drop(
        PLANS[::-1],
        bound=DropBound(bound=bound, measure=measure),
        minimised=Resource.LATENCY_NS,
        space=known or space(),
        contest=judge,
        yardsticks=Yardsticks(full_precision={}, fastest={}, weights=4),
    )


def chosen(found: Certified) -> int:
    return count_of(found.judged[0].entry.plan)


def test_the_leanest_plan_before_the_first_failure_is_chosen() -> None:
    judge = Judge(lost=lambda count: 2 * count)
    # 2 of 1,000 lost have an upper bound of .0058, 4 of .0086, 6 of .0114.
    found = certified(judge)
    assert chosen(found) == 2
    assert found.drop.mean == pytest.approx(0.004)
    assert found.drop.upper <= 0.01
    assert judge.asked == [0, 1, 2, 3]


def test_what_comes_after_a_failure_is_not_tried_however_good_it_might_be() -> None:
    judge = Judge(lost=lambda count: 50 if count == 2 else 0)
    assert chosen(certified(judge)) == 1
    assert judge.asked == [0, 1, 2]


def test_all_certified_end_in_a_race_that_measurement_decides() -> None:
    slow = Judge(lost=lambda _: 0, time=lambda count: 100.0 if count == 3 else 500.0)
    found = certified(slow)
    assert chosen(found) == 3
    assert found.judged[0].entry.latency is not None


def test_a_certified_reference_plan_is_in_the_race_however_slow_it_was_forecast() -> None:
    # Full precision is the slowest of five by forecast, so not among the four leanest.
    judge = Judge(lost=lambda _: 0, time=lambda count: 1.0 if count == 0 else 500.0)
    assert chosen(certified(judge)) == 4
    known = space()
    (cost,) = known.costs
    full = replace(cost.measured[0], assignment=dict.fromkeys(LAYERS, "fp32"))
    both = replace(known, costs=(replace(cost, measured=(*cost.measured, full)),))
    found = certified(judge, known=both)
    assert chosen(found) == 0
    assert found.judged[0].is_reference


def test_a_plan_that_does_not_build_neither_wins_nor_ends_the_search() -> None:
    judge = Judge(lost=lambda _: 0, breaks=(2, 4))
    assert chosen(certified(judge)) == 3


def test_every_plan_that_was_judged_is_told_and_only_those_timed_may_win() -> None:
    judge = Judge(lost=lambda count: 50 if count == 4 else 0, breaks=(2,), time=lambda _: 500.0)
    found = certified(judge)
    timed = [count_of(each.entry.plan) for each in found.judged if each.entry.latency is not None]
    assert sorted(timed) == [0, 1, 3]
    why = {count_of(each.entry.plan): each for each in found.judged if each.left_out}
    assert why[4].left_out == "not certified"
    assert why[2].entry.broken == "does not compile"
    assert not any(each.keeps for each in why.values())
    assert len(found.judged) == len({count_of(each.entry.plan) for each in found.judged}) == 5


def test_certified_plans_that_are_too_slow_to_be_timed_are_told_too() -> None:
    found = certified(Judge(lost=lambda _: 0))
    assert [(count_of(each.entry.plan), each.left_out) for each in found.judged[4:]] == [
        (0, "not among the leanest")
    ]


def test_too_few_samples_are_answered_with_how_many_it_takes() -> None:
    with pytest.raises(BoundNotHeldError, match=r"at most 0\.0027.*5,4\d\d validation") as caught:
        certified(Judge(lost=lambda _: 0), bound=0.0005)
    assert caught.value.samples == SAMPLES
    assert caught.value.needed is not None
    # z^2 (1 - b) / b of the score test where nothing was lost.
    assert caught.value.needed == pytest.approx(2.7055 * (1 - 0.0005) / 0.0005, abs=2)


def test_a_bound_that_no_plan_holds_asks_for_a_higher_bound() -> None:
    with pytest.raises(BoundNotHeldError, match="Raise the bound") as caught:
        certified(Judge(lost=lambda _: 100))
    assert caught.value.needed is None
    assert caught.value.drop == pytest.approx(0.1)


def test_a_measure_that_the_data_does_not_give_is_named() -> None:
    with pytest.raises(DataError, match=r"'spearman'.*one of accuracy"):
        certified(Judge(lost=lambda _: 0), measure="spearman")


def test_where_nothing_builds_it_says_so() -> None:
    with pytest.raises(DeploymentError, match="None of 5 plans"):
        certified(Judge(lost=lambda _: 0, breaks=(0, 1, 2, 3, 4)))
