"""Estimates equal what one works out on paper, and say that they are estimates."""

import pytest

from mpsearch.core.graph import Layer, LayerGraph, Op
from mpsearch.cost.lut_table import cost_table_of
from mpsearch.cost.roofline import DeviceDescription, estimated
from mpsearch.errors import DataError

# A layer of a million weights on one row: 2e6 operations, 4 MB of weights in fp32.
_WIDE = Layer(
    name="wide", op=Op.LINEAR, weight_shape=(1000, 1000), input_shape=(1, 1000),
    output_shape=(1, 1000), macs=10**6, inputs_from="x",
)  # fmt: skip
# The same on 1000 rows.
_DEEP = Layer(
    name="deep", op=Op.LINEAR, weight_shape=(1000, 1000), input_shape=(1000, 1000),
    output_shape=(1000, 1000), macs=10**9, inputs_from="x",
)  # fmt: skip
_ROWS = Layer(
    name="rows", op=Op.EMBEDDING, weight_shape=(1000, 100), input_shape=(1, 10),
    output_shape=(1, 10, 100), macs=0, inputs_from="ids",
)  # fmt: skip
_GRAPH = LayerGraph(layers=(_WIDE, _DEEP, _ROWS), edges=(), fingerprint="f")
_DEVICE = DeviceDescription(
    name="board",
    operations={"fp32": 1e11, "int8": 4e11},
    bytes_per_second=1e10,
    overhead_seconds=1e-6,
)


def _latency(layer: str, name: str) -> float:
    lut = estimated(_GRAPH, _DEVICE, formats=("fp32", "w8a8", "w8", "w4"))
    amounts = lut.amounts(layer, name)
    assert amounts is not None
    return amounts["latency_ns"]


@pytest.mark.parametrize(
    ("layer", "name", "seconds"),
    [
        ("wide", "fp32", (4e6 + 8000) / 1e10),  # bound by memory
        ("wide", "w8a8", (1e6 + 4000 + 1000 + 4000) / 1e10),
        ("wide", "w8", (1e6 + 4000 + 8000) / 1e10),
        ("wide", "w4", (5e5 + 4000 + 8000) / 1e10),
        ("deep", "fp32", 2e9 / 1e11),  # bound by arithmetic
        ("deep", "w8a8", 2e9 / 4e11),
        ("deep", "w8", 2e9 / 1e11),  # weights alone are multiplied in the base
        ("rows", "fp32", (4e5 * 10 / 1000 + 4000) / 1e10),  # ten rows are read
    ],
)
def test_a_layer_takes_the_longer_of_computing_and_moving(
    layer: str, name: str, seconds: float
) -> None:
    assert _latency(layer, name) == pytest.approx((seconds + 1e-6) * 1e9, rel=1e-12)


def test_energy_is_that_of_products_and_of_bytes_moved() -> None:
    amounts = estimated(_GRAPH, _DEVICE, formats=("fp32", "w8a8")).amounts("wide", "fp32")
    assert amounts is not None
    # 4.6 pJ for each product and sum, 162.5 pJ for each byte, by Horowitz (2014).
    assert amounts["energy_nj"] == pytest.approx((1e6 * 4.6 + 4008000 * 162.5) / 1e3)


def test_tables_say_that_they_are_estimates() -> None:
    lut = estimated(_GRAPH, _DEVICE, formats=("fp32", "w8a8"))
    assert lut.estimate
    assert "Horowitz" in lut.source
    table = cost_table_of(lut, _GRAPH)
    assert table.device.name == "board (estimate)"
    assert set(table.amount) == {"latency_ns", "energy_nj", "weight_bytes", "bops", "weight_bits"}


@pytest.mark.parametrize(
    "operations", [{}, {"int8": 1e9}, {"fp32": 0.0}, {"fp32": 1e9, "int8": -1.0}]
)
def test_descriptions_without_positive_numbers_are_refused(operations: dict[str, float]) -> None:
    with pytest.raises(DataError, match="numbers > 0"):
        DeviceDescription(name="d", operations=operations, bytes_per_second=1e9)
