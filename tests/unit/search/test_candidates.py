"""Proposed plans are the best that the tables promise."""

from itertools import product

import numpy as np
import pytest

from mpsearch.core.hardware import Device, Support
from mpsearch.core.plan import Budget, Plan
from mpsearch.core.tables import CostTable, SensitivityTable
from mpsearch.errors import InfeasibleBudgetError
from mpsearch.search import SearchSpace, identity, propose

LAYERS = ("a", "b", "c")
FORMATS = ("w8", "w4")
BYTES = Budget(name="weight_bytes", text="", limit=700.0, unit="B")
LATENCY = Budget(name="latency", text="", limit=460.0, unit="ns")


def space(seed: int) -> SearchSpace:
    """Return random tables of three layers under two bases."""
    random = np.random.default_rng(seed)
    table = SensitivityTable(
        layers=LAYERS,
        formats=FORMATS,
        loss=np.sort(random.uniform(0.1, 1.0, (3, 2)), axis=1),
        stderr=np.zeros((3, 2)),
        metric="output_error",
        unit="squared output",
        base_loss={"bf16": 0.01},
    )
    return SearchSpace(sensitivity=table, costs=tuple(_cost(random, b) for b in ("fp32", "bf16")))


def _cost(random: np.random.Generator, base: str) -> CostTable:
    return CostTable(
        layers=LAYERS,
        formats=(base, *FORMATS),
        base=base,
        placement="layer_inputs",
        amount={
            "weight_bytes": np.array([[400, 100, 50]] * 3),
            "latency_ns": random.integers(100, 200, (3, 3)),
        },
        constant={"weight_bytes": 0, "latency_ns": 0},
        support=((Support.NATIVE,) * 3,) * 3,
        device=Device(name="test", runtime="openvino", threads=1),
    )


def fitting(tables: SearchSpace, *budgets: Budget) -> list[float]:
    """Return the losses of all plans within the budgets, least first, by enumeration."""
    found = []
    for cost in tables.costs:
        for names in product(cost.formats, repeat=3):
            spend = cost.spend(dict(zip(LAYERS, names, strict=True)))
            limits = {"weight_bytes": np.inf, "latency_ns": np.inf}
            limits |= {"latency_ns" if b.name == "latency" else b.name: b.limit for b in budgets}
            if all(spend[name] <= limit for name, limit in limits.items()):
                loss = tables.sensitivity.base_loss.get(cost.base, 0.0)
                loss += sum(
                    tables.sensitivity.loss[i, FORMATS.index(n)]
                    for i, n in enumerate(names)
                    if n in FORMATS
                )
                found.append(loss)
    return sorted(found)


@pytest.mark.parametrize("seed", range(6))
def test_the_first_plan_is_the_optimum_over_all_bases(seed: int) -> None:
    tables = space(seed)
    plans = propose(tables, budgets=[BYTES, LATENCY])
    assert plans[0].forecast["loss"] == pytest.approx(fitting(tables, BYTES, LATENCY)[0])
    assert len({identity(plan) for plan in plans}) == len(plans) <= 3


def test_without_latency_the_next_plans_are_the_next_best_of_a_base() -> None:
    tables = space(1)
    only = SearchSpace(sensitivity=tables.sensitivity, costs=tables.costs[:1])
    found = [plan.forecast["loss"] for plan in propose(only, budgets=[BYTES], count=5)]
    assert found == pytest.approx(fitting(only, BYTES)[:5])


def test_room_in_latency_is_kept_by_one_of_the_plans() -> None:
    plans = propose(space(2), budgets=[BYTES, LATENCY], count=3)
    roomy = [plan for plan in plans if plan.forecast["latency_ns"] <= 0.98 * LATENCY.limit]
    assert roomy


def test_a_forbidden_plan_is_not_proposed_again() -> None:
    tables = space(3)
    first = propose(tables, budgets=[BYTES])
    again = propose(tables, budgets=[BYTES], forbidden=first)
    assert not {identity(plan) for plan in first} & {identity(plan) for plan in again}


def test_no_plan_at_all_is_told_with_the_smallest_reachable_values() -> None:
    tiny = Budget(name="weight_bytes", text="", limit=149.0, unit="B")
    with pytest.raises(InfeasibleBudgetError) as caught:
        propose(space(5), budgets=[tiny])
    assert caught.value.smallest == {"weight_bytes": 150.0}


def test_identity_ignores_the_story_of_a_plan() -> None:
    one = Plan(assignment={"a": "w8"}, origin="x")
    assert identity(one) == identity(Plan(assignment={"a": "w8"}, origin="y", gap=0.1))
    assert identity(one) != identity(Plan(assignment={"a": "w8"}, base="bf16"))
