"""The problem says exactly what the tables say."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpsearch.core.hardware import Device, Support
from mpsearch.core.plan import Budget
from mpsearch.core.tables import CostTable, SensitivityTable
from mpsearch.errors import FormatError, ProblemError, UnknownLayerError
from mpsearch.formulation import formulate

FORMATS = ("bf16", "w8a8", "w4g128")
BUDGETS = (
    Budget(name="weight_bytes", text="", limit=1000.9, unit="B"),
    Budget(name="latency", text="", limit=5000.0, unit="ns"),
)


def tables(seed: int, *, layers: int = 4) -> tuple[SensitivityTable, CostTable]:
    """Return random tables with negative costs and an edge between neighbours."""
    random = np.random.default_rng(seed)
    names = tuple(f"block.{i}" for i in range(layers))
    sensitivity = SensitivityTable(
        layers=names,
        formats=("fp32", "w4g128", "w8a8"),
        loss=random.uniform(size=(layers, 3)) * np.array([0.0, 1.0, 1.0]),
        stderr=np.zeros((layers, 3)),
        metric="output_error",
        unit="squared output",
        base_loss={"fp32": 0.0, "bf16": 0.25},
    )
    cost = CostTable(
        layers=names,
        formats=FORMATS,
        base="bf16",
        placement="layer_inputs",
        amount={
            "weight_bytes": random.integers(-50, 200, (layers, 3)),
            "latency_ns": random.integers(-500, 900, (layers, 3)),
        },
        constant={"weight_bytes": 7, "latency_ns": -3},
        support=((Support.NATIVE, Support.NATIVE, Support.NATIVE),) * layers,
        edges=tuple((i, i + 1) for i in range(layers - 1)),
        edge_amount={"latency_ns": random.integers(-90, 90, (layers - 1, 3, 3))},
        device=Device(name="test", runtime="openvino", threads=1),
    )
    return sensitivity, cost


@given(seed=st.integers(0, 2**31), shared=st.booleans())
def test_spend_and_loss_of_every_choice_equal_the_tables(*, seed: int, shared: bool) -> None:
    sensitivity, cost = tables(seed)
    if shared:
        cost = replace(cost, shared_weights=((0, 1), (2, 3)))
    formulation = formulate(sensitivity, cost, budgets=BUDGETS)
    for choice in product(range(3), repeat=len(formulation.blocks)):
        assignment = formulation.assignment(np.array(choice))
        spend = cost.spend(assignment)
        assert formulation.problem.spend(np.array(choice)).tolist() == [
            spend["weight_bytes"],
            spend["latency_ns"],
        ]
        loss = sum(
            sensitivity.loss[i, sensitivity.formats.index(name)]
            for i, name in enumerate(assignment.values())
            if name != "bf16"
        )
        assert formulation.problem.value(np.array(choice)) == pytest.approx(loss, abs=1e-12)
        assert formulation.choice(assignment).tolist() == list(choice)


def test_limits_are_rounded_down_and_the_base_costs_its_constant() -> None:
    formulation = formulate(*tables(0), budgets=BUDGETS)
    assert formulation.problem.limit.tolist() == [1000, 5000]
    assert formulation.constant_loss == 0.25


def test_unmeasured_and_unsupported_formats_are_not_offered() -> None:
    sensitivity, cost = tables(1)
    loss = sensitivity.loss.copy()
    loss[1, 1] = np.nan
    native = Support.NATIVE
    support = (
        (native, native, native),
        (native, native, native),
        (native, Support.NONE, Support.STORAGE),
        (native, native, native),
    )
    cost = replace(cost, support=support)
    sensitivity = replace(sensitivity, loss=loss)
    both = formulate(sensitivity, cost, budgets=BUDGETS).problem.mask
    assert both[1].tolist() == [True, True, False]
    assert both[2].tolist() == [True, False, True]
    only_time = formulate(sensitivity, cost, budgets=BUDGETS[1:]).problem.mask
    assert only_time[2].tolist() == [True, False, False]


def test_fixed_layers_keep_their_format_and_the_last_pattern_wins() -> None:
    fixed = {"block.*": "w8a8", "block.3": "fp32"}
    mask = formulate(*tables(2), budgets=BUDGETS, fixed=fixed).problem.mask
    assert mask.tolist() == [[False, True, False]] * 3 + [[True, False, False]]


def test_a_fixed_format_that_is_not_offered_is_refused() -> None:
    with pytest.raises(FormatError, match=r"block\.0.*w2"):
        formulate(*tables(3), budgets=BUDGETS, fixed={"block.0": "w2"})


def test_a_pattern_that_matches_nothing_is_refused() -> None:
    with pytest.raises(UnknownLayerError, match="head"):
        formulate(*tables(3), budgets=BUDGETS, fixed={"head": "w8a8"})


def test_tables_of_different_models_are_refused() -> None:
    sensitivity, cost = tables(4)
    with pytest.raises(UnknownLayerError, match=r"block\.4"):
        formulate(sensitivity, tables(4, layers=5)[1], budgets=BUDGETS)
    assert cost.layers == sensitivity.layers


def test_shared_layers_with_no_common_format_are_refused() -> None:
    sensitivity, cost = tables(5)
    native, none = Support.NATIVE, Support.NONE
    support = ((native, none, none), (none, native, native), *((native,) * 3,) * 2)
    cost = replace(cost, support=support, shared_weights=((0, 1),))
    with pytest.raises(ProblemError, match="no allowed format"):
        formulate(sensitivity, cost, budgets=BUDGETS)
