"""Laws of files: what is read is what was written, and half a file never exists."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from mpsearch.core.files import (
    load_plan,
    load_table,
    plan_from_dict,
    save_plan,
    save_table,
    to_json,
    write_atomically,
)
from mpsearch.core.hardware import Device, Support, Workload
from mpsearch.core.plan import SCHEMA_VERSION, ActivationQuantizer, Budget, Plan
from mpsearch.core.provenance import Provenance
from mpsearch.core.tables import Calibration, CostTable, MeasuredPlan, SensitivityTable
from mpsearch.errors import DataError, PlanError

NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
QUANTIZERS = st.builds(
    ActivationQuantizer,
    scale=NUMBERS,
    zero_point=st.integers(0, 255),
    low=NUMBERS,
    high=NUMBERS,
    method=NAMES,
    samples=st.integers(0, 10**9),
)
PLANS = st.builds(
    Plan,
    assignment=st.dictionaries(NAMES, st.sampled_from(["fp32", "w8a8", "w4g128"])),
    base=st.sampled_from(["fp32", "bf16"]),
    settings=st.dictionaries(NAMES, NAMES),
    workloads=st.lists(
        st.builds(
            Workload,
            name=NAMES,
            shapes=st.dictionaries(NAMES, st.lists(st.integers(1, 9)).map(tuple)),
        ),
        max_size=2,
    ).map(tuple),
    quantizers=st.dictionaries(NAMES, QUANTIZERS, max_size=3),
    budgets=st.lists(
        st.builds(Budget, name=NAMES, text=NAMES, limit=NUMBERS, unit=NAMES), max_size=2
    ).map(tuple),
    forecast=st.dictionaries(NAMES, NUMBERS, max_size=3),
    bound=st.none() | NUMBERS,
    gap=st.none() | NUMBERS,
    provenance=st.builds(Provenance, seed=st.integers(0, 2**31), versions=st.just({"numpy": "2"})),
)
PAIRS = npst.array_shapes(min_dims=2, max_dims=2, max_side=5)


def cost_table() -> CostTable:
    return CostTable(
        layers=("a", "b"),
        formats=("fp32", "w8a8"),
        base="fp32",
        placement="layer_inputs",
        amount={
            "weight_bytes": np.array([[400, 104], [800, 208]]),
            "latency_ns": np.array([[10, -4], [2**52, 0]]),
        },
        constant={"latency_ns": 7},
        support=((Support.NATIVE, Support.STORAGE), (Support.NATIVE, Support.NONE)),
        edges=((0, 1),),
        edge_amount={"latency_ns": np.array([[[0, 3], [5, 0]]])},
        calibration={"latency_ns": Calibration(slope=1.5, relative_error=0.02)},
        measured=(
            MeasuredPlan(
                assignment={"a": "fp32", "b": "fp32"},
                base="fp32",
                placement="layer_inputs",
                amount={"latency_ns": 1.25},
            ),
        ),
        device=Device(name="cpu", runtime="openvino", threads=1, software={"openvino": "2026"}),
    )


def sensitivity_table(loss: np.ndarray) -> SensitivityTable:
    return SensitivityTable(
        layers=tuple(f"layer.{row}" for row in range(loss.shape[0])),
        formats=tuple(f"w{column}" for column in range(loss.shape[1])),
        loss=loss,
        stderr=np.abs(loss) / 3,
        metric="output_error",
        unit="squared error per sample",
        provenance=Provenance(seed=3, created="2026-01-01T00:00:00Z"),
    )


@given(PLANS)
def test_a_plan_survives_its_file(plan: Plan) -> None:
    assert plan_from_dict(json.loads(to_json(plan)), origin="memory") == plan


def test_a_plan_survives_the_disk(tmp_path: Path) -> None:
    plan = Plan(assignment={"a": "w8a8"}, forecast={"loss": 0.1 + 0.2})
    save_plan(plan, tmp_path / "new" / "plan.json")
    assert load_plan(tmp_path / "new" / "plan.json") == plan


@given(loss=PAIRS.flatmap(lambda shape: npst.arrays(np.float64, shape)))
def test_a_sensitivity_table_survives_its_file_to_the_last_bit(
    loss: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "sensitivity.npz"
    table = sensitivity_table(loss)
    save_table(table, path)
    read = load_table(path, SensitivityTable)
    assert read.loss.tobytes() == table.loss.tobytes()
    assert read.stderr.tobytes() == table.stderr.tobytes()
    assert (read.layers, read.formats, read.provenance) == (
        table.layers,
        table.formats,
        table.provenance,
    )


def test_the_numbers_of_a_sensitivity_table_survive_its_file(tmp_path: Path) -> None:
    numbers = np.random.default_rng(0).normal(size=(5, 3, 2)).astype(np.float32)
    numbers[:, 0, 0] = np.nan
    table = replace(sensitivity_table(np.zeros((3, 2))), numbers=numbers)
    save_table(table, tmp_path / "sensitivity.npz")
    read = load_table(tmp_path / "sensitivity.npz", SensitivityTable)
    assert read.numbers is not None
    assert read.numbers.dtype == np.float32
    assert read.numbers.tobytes() == numbers.tobytes()


def test_a_table_from_before_there_were_numbers_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "sensitivity.npz"
    monkeypatch.setattr("mpsearch.core.files.vars", without_numbers, raising=False)
    save_table(sensitivity_table(np.zeros((3, 2))), path)
    assert b'"numbers"' not in np.load(path)["header"].tobytes()
    assert load_table(path, SensitivityTable).numbers is None


def without_numbers(table: SensitivityTable) -> dict[str, object]:
    return {name: value for name, value in table.__dict__.items() if name != "numbers"}


def test_a_cost_table_survives_its_file(tmp_path: Path) -> None:
    table = cost_table()
    save_table(table, tmp_path / "costs.npz")
    read = load_table(tmp_path / "costs.npz", CostTable)
    for name in ("amount", "edge_amount"):
        before, after = getattr(table, name), getattr(read, name)
        assert {key: value.tolist() for key, value in after.items()} == {
            key: value.tolist() for key, value in before.items()
        }
        assert all(after[key].dtype == before[key].dtype for key in before)
    assert (read.support, read.calibration, read.measured) == (
        table.support,
        table.calibration,
        table.measured,
    )
    assert (read.device, read.edges, read.constant) == (table.device, table.edges, table.constant)


def test_a_cost_table_without_edges_survives_its_file(tmp_path: Path) -> None:
    full = cost_table()
    table = CostTable(**{**vars(full), "edges": (), "edge_amount": {}})
    save_table(table, tmp_path / "costs.npz")
    assert load_table(tmp_path / "costs.npz", CostTable).edge_amount == {}


def test_a_table_file_holds_no_pickle(tmp_path: Path) -> None:
    save_table(cost_table(), tmp_path / "costs.npz")
    with np.load(tmp_path / "costs.npz", allow_pickle=False) as archive:
        assert all(archive[name].dtype != np.dtype(object) for name in archive.files)


def test_a_newer_plan_is_refused_with_the_way_on() -> None:
    with pytest.raises(PlanError, match=rf"version {SCHEMA_VERSION + 1}.*Upgrade mpsearch"):
        plan_from_dict({"schema_version": SCHEMA_VERSION + 1, "new": 1}, origin="plan.json")


@pytest.mark.parametrize(
    ("raw", "place"),
    [
        ({"assignment": {"a": 3}}, "assignment.a"),
        ({"assignment": {}, "colour": "red"}, "colour"),
        ({}, "assignment"),
        ([], "top level"),
        (None, "top level"),
    ],
)
def test_a_malformed_plan_is_refused_with_the_place(raw: object, place: str) -> None:
    with pytest.raises(PlanError, match=place):
        plan_from_dict(raw, origin="plan.json")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe"])
def test_a_file_that_is_no_plan_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(content)
    with pytest.raises(PlanError, match="cannot be read"):
        load_plan(path)


def test_a_missing_plan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"plan\.json"):
        load_plan(tmp_path / "plan.json")


def test_a_table_of_the_other_kind_is_refused(tmp_path: Path) -> None:
    save_table(cost_table(), tmp_path / "table.npz")
    with pytest.raises(DataError, match=r"holds a CostTable.*Expected a SensitivityTable"):
        load_table(tmp_path / "table.npz", SensitivityTable)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_truncated_table_is_refused(share: float, tmp_path: Path) -> None:
    path = tmp_path / "table.npz"
    save_table(cost_table(), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DataError, match=r"cannot be read.*measure again"):
        load_table(path, CostTable)


@given(data=st.data())
def test_a_damaged_table_is_refused_or_reads_the_same(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.npz"
    table = sensitivity_table(np.arange(6.0).reshape(2, 3))
    save_table(table, path)
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        read = load_table(path, SensitivityTable)
    except DataError as error:
        assert "cannot be read" in str(error)  # noqa: PT017 a harmless byte may not raise
    else:
        assert read.loss.tobytes() == table.loss.tobytes()
        assert read.layers == table.layers


def test_a_pickled_array_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.npz"
    np.savez(path, header=np.array([{"type": "CostTable"}], dtype=object))
    with pytest.raises(DataError, match="cannot be read"):
        load_table(path, CostTable)


def test_a_table_with_a_missing_field_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.npz"
    header = json.dumps({"type": "SensitivityTable"}).encode()
    np.savez(path, header=np.frombuffer(header, dtype=np.uint8))
    with pytest.raises(DataError, match="cannot be read"):
        load_table(path, SensitivityTable)


def test_writing_replaces_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file"
    write_atomically(path, b"a longer content")
    write_atomically(path, b"short")
    assert path.read_bytes() == b"short"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.skipif(os.name != "posix", reason="Windows has no umask")
def test_a_file_is_for_whom_the_users_umask_says(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "file", b"content")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_a_write_that_breaks_off_leaves_the_old_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def break_off(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mpsearch.core.files.os.fsync", break_off)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
