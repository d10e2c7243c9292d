"""What a plan of quantised additions carries and promises."""

import numpy as np
import pytest

from mpsearch.core.hardware import Device, Support
from mpsearch.core.placement import addend_keys
from mpsearch.core.plan import ActivationQuantizer, Budget
from mpsearch.core.tables import CostTable, SensitivityTable
from mpsearch.formulation import formulate, plan_of

_FORMATS = ("bf16", "w8a8")


def _quantizer(place: int) -> ActivationQuantizer:
    return ActivationQuantizer(
        scale=1.0, zero_point=place, low=0.0, high=1.0, method="minmax", samples=1
    )


def _tables(placement: str) -> tuple[SensitivityTable, CostTable]:
    keys = ("a", "b", *addend_keys("a"), *addend_keys("b"))
    sensitivity = SensitivityTable(
        layers=("a", "b"),
        formats=("w8a8",),
        loss=np.array([[1.0], [2.0]]),
        stderr=np.zeros((2, 1)),
        metric="output_error",
        unit="squared output",
        base_loss={"bf16": 0.25},
        placement_loss={"residual_adds": 0.5},
        quantizers={key: _quantizer(place) for place, key in enumerate(keys)},
    )
    cost = CostTable(
        layers=("a", "b"),
        formats=_FORMATS,
        base="bf16",
        placement=placement,
        amount={"weight_bytes": np.array([[4, 1], [4, 1]])},
        constant={},
        support=((Support.NATIVE,) * 2,) * 2,
        additions={} if placement == "layer_inputs" else {"a": "a", "b": "b"},
        device=Device(name="test", runtime="openvino", threads=1),
    )
    return sensitivity, cost


@pytest.mark.parametrize(
    ("placement", "loss", "keys"),
    [
        ("layer_inputs", 2.25, {"b"}),
        ("residual_adds", 2.75, {"b", *addend_keys("b")}),
    ],
)
def test_a_placement_adds_its_loss_and_the_quantisers_of_static_layers_sums(
    placement: str, loss: float, keys: set[str]
) -> None:
    sensitivity, cost = _tables(placement)
    assignment = {"a": "bf16", "b": "w8a8"}
    plan = plan_of(sensitivity, cost, assignment=assignment, budgets=(), origin="test")
    assert plan.placement == placement
    assert plan.forecast["loss"] == pytest.approx(loss)
    assert set(plan.quantizers) == keys
    room = Budget(name="weight_bytes", text="", limit=8.0, unit="bytes")
    formulation = formulate(sensitivity, cost, budgets=(room,))
    assert formulation.constant_loss == pytest.approx(loss - 2.0)
