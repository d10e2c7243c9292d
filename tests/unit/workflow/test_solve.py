"""Plans from stored tables equal exhaustive search, without torch."""

import subprocess
import sys
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from mpsearch.core.hardware import Device, Support
from mpsearch.core.plan import ActivationQuantizer
from mpsearch.core.tables import CostTable, MeasuredPlan, SensitivityTable
from mpsearch.errors import BudgetError, DataError, InfeasibleBudgetError
from mpsearch.workflow.solve import (
    frontier,
    resolved,
    smallest_reachable,
    solve_tables,
    yardsticks_of,
)

FORMATS = ("w8a8", "w4g128")
LAYERS = tuple(f"layer.{i}" for i in range(4))
QUANTIZER = ActivationQuantizer(
    scale=0.1, zero_point=128, low=-12.8, high=12.7, method="mse", samples=8
)


def sensitivity(seed: int) -> SensitivityTable:
    """Return random losses; bf16 itself costs a little."""
    loss = np.random.default_rng(seed).uniform(0.1, 1.0, (len(LAYERS), len(FORMATS)))
    return SensitivityTable(
        layers=LAYERS,
        formats=FORMATS,
        loss=loss,
        stderr=loss / 10,
        metric="output_error",
        unit="squared output",
        base_loss={"fp32": 0.0, "bf16": 0.05},
        quantizers=dict.fromkeys(LAYERS, QUANTIZER),
    )


def costs(seed: int) -> tuple[CostTable, CostTable]:
    """Return a table per base with edges between neighbours and three measured references."""
    return tuple(_cost(seed, base=base) for base in ("fp32", "bf16"))  # type: ignore[return-value]  # two of them


def _cost(seed: int, *, base: str) -> CostTable:
    random = np.random.default_rng((seed, base == "bf16"))
    formats = (base, *FORMATS)
    size = random.integers(50, 200, (len(LAYERS), 1)) * np.array([[4, 1, 1]])
    size[:, 2] //= 2
    latency = {"fp32": 900.0, "bf16": 500.0}[base]
    return CostTable(
        layers=LAYERS,
        formats=formats,
        base=base,
        placement="layer_inputs",
        amount={
            "weight_bytes": size,
            "latency_ns": random.integers(-80, 80, (len(LAYERS), 3)),
        },
        constant={"weight_bytes": 10, "latency_ns": int(latency)},
        support=((Support.NATIVE,) * 3,) * len(LAYERS),
        edges=((0, 1), (1, 2), (2, 3)),
        edge_amount={"latency_ns": random.integers(-20, 20, (3, 3, 3))},
        measured=(
            MeasuredPlan(
                assignment=dict.fromkeys(LAYERS, base),
                base=base,
                placement="layer_inputs",
                amount={"latency_ns": latency},
                role="reference",
            ),
        ),
        device=Device(name="test", runtime="openvino", threads=1),
    )


def every_plan(seed: int) -> list[tuple[float, dict[str, int]]]:
    """Return loss and spend of every assignment under every base, by enumeration."""
    table = sensitivity(seed)
    found = []
    for cost in costs(seed):
        for names in product(cost.formats, repeat=len(LAYERS)):
            loss = table.base_loss[cost.base] + sum(
                table.loss[i, FORMATS.index(name)]
                for i, name in enumerate(names)
                if name in FORMATS
            )
            found.append((loss, cost.spend(dict(zip(LAYERS, names, strict=True)))))
    return found


@pytest.mark.parametrize("seed", range(8))
def test_the_plan_is_the_best_of_all_bases(seed: int) -> None:
    budgets = {"weight_bytes": "30%", "latency": "105% of fastest"}
    limits = {budget.name: budget.limit for budget in resolved(budgets, costs=costs(seed))}
    fitting = [
        loss
        for loss, spend in every_plan(seed)
        if spend["weight_bytes"] <= limits["weight_bytes"]
        and spend["latency_ns"] <= limits["latency"]
    ]
    if not fitting:
        with pytest.raises(InfeasibleBudgetError):
            solve_tables(sensitivity(seed), costs(seed), budgets=budgets)
        return
    solved = solve_tables(sensitivity(seed), costs(seed), budgets=budgets)
    assert solved.plan.forecast["loss"] == pytest.approx(min(fitting))
    quantised = {layer for layer, name in solved.plan.assignment.items() if name == "w8a8"}
    assert set(solved.plan.quantizers) == quantised


def test_shares_refer_to_full_precision_and_to_the_fastest_reference() -> None:
    found = yardsticks_of(costs(0))
    assert (
        found.full_precision["weight_bytes"]
        == costs(0)[0].spend(dict.fromkeys(LAYERS, "fp32"))["weight_bytes"]
    )
    assert found.fastest == {"latency_ns": 500.0}


def test_an_infeasible_budget_says_the_smallest_reachable_value() -> None:
    with pytest.raises(InfeasibleBudgetError, match="weight_bytes") as caught:
        solve_tables(sensitivity(1), costs(1), budgets={"weight_bytes": "1B"})
    least = min(spend["weight_bytes"] for _, spend in every_plan(1))
    assert caught.value.smallest == {"weight_bytes": least}


@pytest.mark.parametrize("seed", range(4))
def test_the_smallest_reachable_value_keeps_the_other_budgets(seed: int) -> None:
    limit = 520.0
    best = min(
        spend["weight_bytes"] for _, spend in every_plan(seed) if spend["latency_ns"] <= limit
    )
    found = smallest_reachable(
        costs(seed), resource="weight_bytes", budgets={"latency": f"{limit}ns"}
    )
    assert found == best


def test_the_front_falls_and_each_point_is_optimal() -> None:
    points = frontier(sensitivity(2), costs(2), resource="weight_bytes", points=9)
    losses = [point.loss for point in points]
    assert losses == sorted(losses, reverse=True)
    plans = every_plan(2)
    for point in points:
        best = min(loss for loss, spend in plans if spend["weight_bytes"] <= point.limit)
        assert point.loss == pytest.approx(best)
        assert point.spend["weight_bytes"] <= point.limit


def test_a_budget_that_the_tables_do_not_hold_is_refused() -> None:
    with pytest.raises(BudgetError, match="bops"):
        solve_tables(sensitivity(0), costs(0), budgets={"bops": "1GBOPs"})
    with pytest.raises(DataError, match="No cost table"):
        solve_tables(sensitivity(0), (), budgets={"weight_bytes": "1B"})


def test_one_base_alone_is_solved_too() -> None:
    only = replace(costs(3)[1])
    plan = solve_tables(sensitivity(3), [only], budgets={"weight_bytes": "10KB"}).plan
    assert plan.base == "bf16"
    assert plan.forecast["loss"] == pytest.approx(0.05)


def test_solving_from_tables_loads_no_torch() -> None:
    code = "import mpsearch.workflow.solve, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
