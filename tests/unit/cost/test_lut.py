"""Look-up tables survive their files, become cost tables, and are refused where they are wrong."""

import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpsearch.core.graph import Layer, LayerGraph, Op
from mpsearch.core.hardware import Support
from mpsearch.core.plan import Budget
from mpsearch.core.tables import SensitivityTable
from mpsearch.cost.lut import Lut, LutRow, lut_of, read_lut, write_lut
from mpsearch.cost.lut_table import cost_table_of
from mpsearch.errors import DataError, FormatError
from mpsearch.formulation import formulate
from mpsearch.solvers import solve, with_ties
from mpsearch.solvers.published import between, hawq_loss

HAWQ = Path(__file__).parents[4] / "shared" / "data" / "hawq_v3.json"


def _layer(name: str, *, size: int = 8) -> Layer:
    return Layer(
        name=name, op=Op.LINEAR, weight_shape=(size, size), input_shape=(1, size),
        output_shape=(1, size), macs=size * size, inputs_from=name,
    )  # fmt: skip


GRAPH = LayerGraph(
    layers=(_layer("a"), _layer("b"), _layer("c", size=16)), edges=(), fingerprint="f"
)


def _lut(**changes: Any) -> Lut:  # noqa: ANN401 - fields of a table
    rows = tuple(
        LutRow(name=layer, format=name, amount={"latency_ns": 100.0 * place + 10 * column})
        for place, layer in enumerate("abc")
        for column, name in enumerate(("fp32", "w8a8"))
    )
    return replace(Lut(device="a phone", key="layer", rows=rows, source="a friend"), **changes)


@pytest.mark.parametrize("suffix", [".csv", ".json"])
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_files_give_back_what_was_written(suffix: str, data: st.DataObject) -> None:
    name = st.text(st.characters(codec="utf-8", categories=("L", "N", "P")), min_size=1)
    amount = st.dictionaries(
        st.sampled_from(["latency_ns", "energy_nj"]), st.floats(0, 1e18), min_size=2
    )
    pairs = data.draw(
        st.lists(st.tuples(name, st.sampled_from(["w8", "w4"])), unique=True, min_size=1)
    )
    lut = Lut(
        device='device: of, some "kind"',
        key=data.draw(st.sampled_from(["layer", "signature"])),
        rows=tuple(
            LutRow(name=each, format=form, amount=dict(sorted(data.draw(amount).items())))
            for each, form in pairs
        ),
        source="here",
        estimate=data.draw(st.booleans()),
        resources=("energy_nj", "latency_ns"),
    )
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"table{suffix}"
        write_lut(lut, path)
        assert read_lut(path, device=lut.device) == lut


def test_rows_become_what_a_plan_spends() -> None:
    table = cost_table_of(_lut(), GRAPH)
    assert table.spend({"a": "fp32", "b": "w8a8", "c": "w8a8"})["latency_ns"] == 0 + 110 + 210
    # 64, 64 and 256 weights: 4 bytes each, or one byte and a scale of 4 bytes per row.
    assert table.spend(dict.fromkeys("abc", "fp32"))["weight_bytes"] == 4 * 384
    assert table.spend(dict.fromkeys("abc", "w8a8"))["weight_bytes"] == 384 + 4 * 32
    assert table.device.name == "a phone"
    assert table.device.runtime == "look-up table"
    assert table.calibration == {}


def test_an_estimate_is_labelled_one() -> None:
    table = cost_table_of(_lut(estimate=True), GRAPH)
    assert table.device.name == "a phone (estimate)"
    assert table.device.runtime == "estimate"


def test_layers_of_one_signature_share_a_row() -> None:
    rows = tuple(
        LutRow(name=layer.signature, format=name, amount={"latency_ns": cost})
        for layer, costs in ((_layer("x"), (7.0, 5.0)), (_layer("y", size=16), (70.0, 50.0)))
        for name, cost in zip(("fp32", "w8a8"), costs, strict=True)
    )
    table = cost_table_of(Lut(device="d", key="signature", rows=rows), GRAPH)
    assert table.amount["latency_ns"].tolist() == [[7, 5], [7, 5], [70, 50]]


def test_an_empty_row_means_no_kernel(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    write_lut(_lut(), path)
    path.write_text(path.read_text().replace("b,w8a8,110.0", "b,w8a8,"))
    table = cost_table_of(read_lut(path), GRAPH)
    assert table.support[1] == (Support.NATIVE, Support.NONE)
    assert table.support[0] == (Support.NATIVE, Support.NATIVE)


def test_a_cost_table_comes_back_from_its_rows() -> None:
    table = cost_table_of(_lut(), GRAPH)
    again = cost_table_of(lut_of(table, GRAPH), GRAPH)
    for name, amount in table.amount.items():
        np.testing.assert_array_equal(again.amount[name], amount)
    mean = cost_table_of(lut_of(table, GRAPH, key="signature"), GRAPH)
    assert mean.amount["latency_ns"].tolist() == [[50, 60], [50, 60], [200, 210]]


@pytest.mark.parametrize(
    ("old", "new", "fact"),
    [
        ("a,fp32,0.0", "a,fp32,-1", "-1.0 as latency_ns of 'a'"),
        ("a,fp32,0.0", "a,fp32,nan", "nan as latency_ns"),
        ("a,fp32,0.0", "a,fp32,fast", "could not convert"),
        ("b,fp32,100.0", "a,fp32,100.0", "two rows of 'a' in 'fp32'"),
        ("layer,format", "name,format", "columns"),
    ],
)
def test_wrong_rows_are_told(tmp_path: Path, old: str, new: str, fact: str) -> None:
    path = tmp_path / "table.csv"
    write_lut(_lut(), path)
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(DataError, match=fact):
        read_lut(path)


def test_missing_rows_and_unknown_layers_are_told() -> None:
    lut = _lut()
    with pytest.raises(DataError, match="no row of 'c' in 'w8a8'"):
        cost_table_of(replace(lut, rows=lut.rows[:-1]), GRAPH)
    more = LutRow(name="stranger", format="fp32", amount={})
    with pytest.raises(DataError, match="rows of 'stranger'"):
        cost_table_of(replace(lut, rows=(*lut.rows, more)), GRAPH)
    with pytest.raises(FormatError):
        cost_table_of(_lut(), GRAPH, formats=("w99",))


def test_a_table_of_another_device_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    write_lut(_lut(), path)
    assert read_lut(path, device="a phone") == read_lut(path)
    with pytest.raises(DataError, match="is of device 'a phone'"):
        read_lut(path, device="a watch")


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"key": "layer"}'])
def test_files_of_another_kind_are_told(tmp_path: Path, text: str) -> None:
    for suffix in (".csv", ".json"):
        path = tmp_path / f"table{suffix}"
        path.write_text(text)
        with pytest.raises(DataError, match="no look-up table"):
            read_lut(path)
    with pytest.raises(DataError, match="no look-up table"):
        read_lut(tmp_path / "absent.csv")


@pytest.mark.zoo
@pytest.mark.parametrize("share", ["0.75", "0.5", "0.25"])
def test_the_published_latencies_of_hawq_give_its_published_plans(
    tmp_path: Path, share: str
) -> None:
    if not HAWQ.exists():
        pytest.skip("hawq_v3.json is not beside the checkout")
    model = json.loads(HAWQ.read_text())["models"]["resnet18"]
    given_layers = model["layers"]
    path = tmp_path / "t4.csv"
    lines = ["# device: NVIDIA T4, batch 8", "layer,format,latency_ns"]
    for bits, name in ((4, "w4"), (8, "w8")):
        lines += [
            f"{layer['name']},{name},{layer[f'latency_ms_b{bits}'] * 1e6}" for layer in given_layers
        ]
        lines += [] if bits == 4 else [f"{layer['name']},fp32," for layer in given_layers]
    path.write_text("\n".join(lines))
    graph = LayerGraph(
        layers=tuple(_layer(layer["name"]) for layer in given_layers), edges=(), fingerprint="h"
    )
    table = cost_table_of(read_lut(path, device="NVIDIA T4, batch 8"), graph)
    loss = np.full((len(graph.layers), 3), np.nan)
    trace = np.array([layer["trace_per_param"] for layer in given_layers])
    change = np.array([[layer["dw2_b4"], layer["dw2_b8"]] for layer in given_layers])
    loss[:, [table.formats.index("w4"), table.formats.index("w8")]] = hawq_loss(trace, change)
    sensitivity = SensitivityTable(
        layers=graph.names, formats=table.formats, loss=loss, stderr=loss * 0,
        metric="hawq", unit="published",
    )  # fmt: skip
    limit = between(
        *(
            float(table.spend(dict.fromkeys(graph.names, name))["latency_ns"])
            for name in ("w4", "w8")
        ),
        share=float(share),
    )
    budget = Budget(name="latency", text="", limit=float(limit), unit="ns")
    formulation = formulate(sensitivity, table, budgets=[budget])
    group = np.arange(len(graph.layers))
    for first, second in model["ties"]:
        group[second] = group[first]
    group = np.unique(group, return_inverse=True)[1]
    solution = solve(with_ties(formulation.problem, group))
    assert solution.choice is not None
    found = "".join(table.formats[place][1] for place in solution.choice[group])
    assert found == model["published_bits"][f"latency_{share}"]
