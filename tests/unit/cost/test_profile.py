"""Profiles of a device whose times are known, and of this one."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from mpsearch.core.cache import Cache
from mpsearch.core.files import load_table, save_table
from mpsearch.core.graph import LayerGraph
from mpsearch.core.hardware import Support, Workload
from mpsearch.core.plan import ActivationQuantizer
from mpsearch.core.progress import ProgressEvent
from mpsearch.core.tables import CostTable
from mpsearch.cost import profile
from mpsearch.cost.sampling import assignment_of, random_choices
from mpsearch.errors import FormatError, MeasurementError
from mpsearch.runtimes import RUNTIMES

FORMATS = ("fp32", "w8a8", "w8", "w4g128")


@pytest.fixture
def request_(
    graph: LayerGraph,
    base: onnx.ModelProto,
    quantizers: dict[str, ActivationQuantizer],
    workload: Workload,
    runtime: Any,  # noqa: ANN401 - a fixture's class cannot be imported
) -> dict[str, Any]:
    """Return the arguments of a profile on the known device."""
    return {
        "base": base,
        "graph": graph,
        "runtime": runtime,
        "formats": FORMATS,
        "base_precision": "fp32",
        "workload": workload,
        "quantizers": quantizers,
        "references": _uniform(graph),
        "state": runtime.state,
    }


def _uniform(graph: LayerGraph) -> list[dict[str, str]]:
    plans = [dict.fromkeys(graph.names, name) for name in FORMATS]
    return [plan | {"words": "fp32"} for plan in plans] + [{**plans[2], "words": "w8"}]


def _profiled(request: Mapping[str, Any], **changes: object) -> CostTable:
    given = {**request, **changes}
    return profile(given.pop("base"), given.pop("graph"), **given)


def test_unseen_plans_are_predicted(request_: dict[str, Any]) -> None:
    table = _profiled(request_)
    rows = random_choices(table.allowed, count=30, generator=np.random.default_rng(77))
    errors = []
    for row in rows:
        assignment = assignment_of(row, layers=table.layers, formats=FORMATS)
        truth = request_["runtime"].known(assignment)
        errors.append(1e-9 * table.spend(assignment)["latency_ns"] / truth - 1)
    assert np.abs(errors).max() < 0.04
    assert np.sqrt(np.mean(np.square(errors))) < 0.02
    assert table.calibration["latency_ns"].relative_error < 0.03
    assert table.calibration["latency_ns"].repeatability < 1e-3


def test_every_whole_plan_is_kept_with_its_role(request_: dict[str, Any]) -> None:
    table = _profiled(request_)
    references = [plan for plan in table.measured if plan.role == "reference"]
    assert [dict(plan.assignment) for plan in references] == request_["references"]
    assert sum(plan.role == "random" for plan in table.measured) == 8
    for plan in table.measured:
        truth = request_["runtime"].known(plan.assignment)
        assert 1e-9 * plan.amount["latency_ns"] == pytest.approx(truth, rel=1e-3)
        assert plan.amount["weight_bytes"] == table.spend(plan.assignment)["weight_bytes"]


def test_a_second_profile_builds_nothing_and_is_the_same(
    request_: dict[str, Any], tmp_path: Path
) -> None:
    cache = Cache(folder=tmp_path)
    first = _profiled(request_, cache=cache)
    built = len(request_["runtime"].builds)
    second = _profiled(request_, cache=cache)
    assert len(request_["runtime"].builds) == built
    assert (first.amount["latency_ns"] == second.amount["latency_ns"]).all()
    assert first.measured == second.measured


def test_a_killed_profile_goes_on_with_the_next_group(
    request_: dict[str, Any],
    tmp_path: Path,
    runtime: Any,  # noqa: ANN401 - as above
) -> None:
    cache = Cache(folder=tmp_path)
    short = type(runtime)(clock=runtime.clock, fuse=11)
    with pytest.raises(KeyboardInterrupt):
        _profiled(request_, cache=cache, runtime=short)
    table = _profiled(request_, cache=cache)
    # The anchor and the first group of eight were built before; the anchor is built again.
    assert len(runtime.builds) == len(table.measured) - 8 + 1


def test_a_plan_that_does_not_compile_is_left_out_and_said_so(
    request_: dict[str, Any],
    runtime: Any,  # noqa: ANN401 - as above
    caplog: pytest.LogCaptureFixture,
) -> None:
    broken = type(runtime)(clock=runtime.clock, refused=frozenset({"w4g128"}))
    with caplog.at_level(logging.WARNING, logger="mpsearch.cost"):
        table = _profiled(request_, runtime=broken)
    assert all("w4g128" not in plan.assignment.values() for plan in table.measured)
    assert "left out of the profile" in caplog.text


def test_too_few_plans_are_an_error(
    request_: dict[str, Any],
    runtime: Any,  # noqa: ANN401 - as above
) -> None:
    broken = type(runtime)(clock=runtime.clock, refused=frozenset(FORMATS[1:]))
    with pytest.raises(MeasurementError, match=r"Expected at least 4"):
        _profiled(request_, runtime=broken)


def test_the_base_precision_has_to_be_on_offer(request_: dict[str, Any]) -> None:
    with pytest.raises(FormatError, match=r"not among the formats"):
        _profiled(request_, formats=("w8",))


def test_progress_counts_plans(request_: dict[str, Any]) -> None:
    seen: list[ProgressEvent] = []
    table = _profiled(request_, progress=seen.append)
    assert seen[-1].done == seen[-1].total == len(table.measured)


def test_without_a_file_only_what_can_be_counted_is_there(
    graph: LayerGraph, workload: Workload
) -> None:
    table = profile(
        None,
        graph,
        runtime=RUNTIMES["simulation"],
        formats=("fp32", "w8", "w3"),
        base_precision="fp32",
        workload=workload,
    )
    assert set(table.amount) == {"weight_bytes", "bops", "weight_bits"}
    assert not table.edges
    assert not table.measured


def test_a_table_survives_its_file(request_: dict[str, Any], tmp_path: Path) -> None:
    table = _profiled(request_)
    save_table(table, tmp_path / "cost.npz")
    again = load_table(tmp_path / "cost.npz", CostTable)
    assignment = request_["references"][1]
    assert again.spend(assignment) == table.spend(assignment)
    assert again.measured == table.measured


def test_this_device_is_profiled(request_: dict[str, Any]) -> None:
    table = _profiled(request_, runtime=RUNTIMES["openvino"], state=None)
    uniform = request_["references"]
    assert table.support[1][0] is Support.NATIVE
    for plan in uniform:
        assert table.spend(plan)["latency_ns"] > 0
    assert table.settings == RUNTIMES["openvino"].settings("fp32")
