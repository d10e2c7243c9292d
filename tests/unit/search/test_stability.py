"""Layers flip as often as their standard errors say."""

from dataclasses import replace
from math import erf, sqrt

import numpy as np
import pytest

from mpsearch.core.hardware import Device, Support
from mpsearch.core.plan import Budget
from mpsearch.core.tables import CostTable, SensitivityTable
from mpsearch.search.stability import flip_shares, flips_told

LAYERS = ("a", "b", "c")
DRAWS = 200


def table(*, losses: tuple[float, ...], stderr: tuple[float, ...]) -> SensitivityTable:
    """Return losses of two bits by layer; eight bits lose nothing, surely."""
    return SensitivityTable(
        layers=LAYERS,
        formats=("w8", "w2"),
        loss=np.array([[0.0, loss] for loss in losses]),
        stderr=np.array([[0.0, error] for error in stderr]),
        metric="output_error",
        unit="squared output",
    )


def cost() -> CostTable:
    """Return bits of three layers of a hundred weights each."""
    return CostTable(
        layers=LAYERS,
        formats=("fp32", "w8", "w2"),
        base="fp32",
        placement="layer_inputs",
        amount={"weight_bits": np.array([[3200, 800, 200]] * 3)},
        constant={},
        support=((Support.NATIVE,) * 3,) * 3,
        device=Device(name="test", runtime="simulation", threads=1),
    )


def shares(found: SensitivityTable, *, limit: float) -> dict[str, float]:
    """Return how often each layer flips."""
    return flip_shares(
        found,
        cost(),
        budgets=[Budget(name="weight_bits", text="", limit=limit, unit="bits")],
        fixed={},
        generator=np.random.default_rng(0),
        draws=DRAWS,
    )


@pytest.mark.parametrize("gap", [0.1, 0.5, 1.5])
def test_two_layers_swap_as_often_as_their_losses_change_order(gap: float) -> None:
    """Room for eight bits twice: c has them surely, a or b by P(N(gap, .3^2 + .4^2) < 0)."""
    found = shares(table(losses=(2.0 + gap, 2.0, 50.0), stderr=(0.3, 0.4, 0.0)), limit=1800.0)
    wanted = 0.5 * (1 - erf(gap / 0.5 / sqrt(2)))
    noise = sqrt(wanted * (1 - wanted) / DRAWS)
    assert found["a"] == pytest.approx(wanted, abs=4 * noise + 1e-9)
    assert found["b"] == found["a"]
    assert found["c"] == 0.0


@pytest.mark.parametrize("error", [0.0, float("nan")])
def test_without_standard_errors_nothing_flips(error: float) -> None:
    found = shares(table(losses=(1.0, 2.0, 3.0), stderr=(error,) * 3), limit=1800.0)
    assert found == dict.fromkeys(LAYERS, 0.0)


def test_the_errors_of_layers_that_share_a_weight_add_as_squares() -> None:
    """Block (a, b), of error 5, stands against c: there is room for eight bits of either."""
    shared = replace(cost(), shared_weights=((0, 1),))
    found = flip_shares(
        table(losses=(2.0, 2.0, 3.0), stderr=(3.0, 4.0, 0.0)),
        shared,
        budgets=[Budget(name="weight_bits", text="", limit=1800.0, unit="bits")],
        fixed={},
        generator=np.random.default_rng(0),
        draws=DRAWS,
    )
    wanted = 0.5 * (1 - erf((4.0 - 3.0) / 5.0 / sqrt(2)))
    assert found["a"] == pytest.approx(wanted, abs=4 * sqrt(wanted * (1 - wanted) / DRAWS))
    assert found["a"] == found["b"]


def test_where_no_plan_keeps_the_budgets_there_is_nothing_to_flip() -> None:
    assert shares(table(losses=(1.0, 2.0, 3.0), stderr=(1.0,) * 3), limit=100.0) == {}


def test_without_budgets_there_is_nothing_to_flip() -> None:
    """As where a bound on what is lost is given in their place."""
    found = flip_shares(
        table(losses=(1.0, 2.0, 3.0), stderr=(1.0,) * 3),
        cost(),
        budgets=[],
        fixed={},
        generator=np.random.default_rng(0),
    )
    assert found == {}


def test_what_is_open_is_named_the_least_settled_first() -> None:
    formats = {"a": "w8", "b": "w2", "c": "w8"}
    told = flips_told({"a": 0.2, "b": 0.5, "c": 0.01}, formats=formats)
    assert "2 of 3 layers" in told
    assert told.index("b (w2, 50%)") < told.index("a (w8, 20%)")
    assert "c (" not in told
    assert flips_told({"a": 0.0}, formats=formats) == ""
