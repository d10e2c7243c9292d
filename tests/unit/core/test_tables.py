"""Laws of the cost table."""

from itertools import product

import numpy as np
import pytest

from mpsearch.core.hardware import Device, Support
from mpsearch.core.tables import CostTable

FORMATS = ("fp32", "w8a8", "w8")
TIME = np.array([[10, -4, 1], [20, 0, -7]])
EDGE = np.arange(9).reshape(1, 3, 3)
TABLE = CostTable(
    layers=("a", "b"),
    formats=FORMATS,
    base="fp32",
    placement="layer_inputs",
    amount={"latency_ns": TIME, "weight_bytes": np.array([[400, 104, 104], [800, 208, 208]])},
    constant={"latency_ns": 7},
    support=(
        (Support.NATIVE, Support.NATIVE, Support.STORAGE),
        (Support.NATIVE, Support.NONE, Support.STORAGE),
    ),
    edges=((0, 1),),
    edge_amount={"latency_ns": EDGE},
    device=Device(name="cpu", runtime="openvino", threads=1),
)


@pytest.mark.parametrize(("a", "b"), list(product(range(3), repeat=2)))
def test_a_plan_spends_constant_entries_and_edges(a: int, b: int) -> None:
    spent = TABLE.spend({"a": FORMATS[a], "b": FORMATS[b]})
    assert spent["latency_ns"] == 7 + TIME[0, a] + TIME[1, b] + EDGE[0, a, b]


def test_a_resource_without_constant_or_edges_is_the_sum_of_its_entries() -> None:
    assert TABLE.spend({"b": "fp32", "a": "w8"})["weight_bytes"] == 104 + 800


def test_an_incomplete_assignment_is_refused() -> None:
    with pytest.raises(KeyError, match="b"):
        TABLE.spend({"a": "fp32"})
    with pytest.raises(KeyError, match="w4"):
        TABLE.spend({"a": "fp32", "b": "w4"})


def test_storage_is_allowed_and_nothing_is_not() -> None:
    assert TABLE.allowed.tolist() == [[True, True, True], [True, False, True]]
