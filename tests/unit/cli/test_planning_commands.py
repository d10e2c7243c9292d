"""Laws of the commands that plan from stored tables, and of those that look after the machine."""

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from mpsearch.core.cache import Cache, content_hash
from mpsearch.core.files import load_plan

Invoke = Callable[..., Result]
Answer = Callable[..., Any]
LOSS = [[0.0, 0.1, 1.0], [0.0, 0.2, 5.0], [0.0, 0.3, 2.0]]
BYTES = [4000, 1000, 500]


def least_loss(limit: int) -> float:
    """Return the optimum by trying every plan."""
    return min(
        sum(row[place] for row, place in zip(LOSS, choice, strict=True))
        for choice in product(range(3), repeat=3)
        if sum(BYTES[place] for place in choice) <= limit
    )


@pytest.mark.parametrize("limit", [1500, 2000, 2500, 3000, 6000, 12000])
def test_solve_finds_the_optimum_of_the_tables(limit: int, tables: Path, answer: Answer) -> None:
    found = answer("solve", tables, "--budget", f"weight_bytes={limit}B")
    assert found["solution"]["termination"] == "optimal"
    assert found["solution"]["loss"] == pytest.approx(least_loss(limit))


def test_solve_writes_the_plan_that_it_shows(tables: Path, tmp_path: Path, answer: Answer) -> None:
    path = tmp_path / "plan.json"
    found = answer("solve", tables, "--budget", "weight_bytes=25%", "--output", path)
    assert found["files"] == {"plan": str(path)}
    assert load_plan(path).assignment == found["plan"]["assignment"]


def test_solve_keeps_a_pinned_layer(tables: Path, answer: Answer) -> None:
    pins = ("--fix", "embed=fp32", "--fix", "block.*=w4")
    found = answer("solve", tables, "--budget", "weight_bytes=5kB", *pins)
    assert found["plan"]["assignment"] == {"embed": "fp32", "block.0": "w4", "block.1": "w4"}


def test_an_infeasible_budget_exits_with_3_and_the_smallest_value(
    tables: Path, invoke: Invoke
) -> None:
    result = invoke("solve", tables, "--budget", "weight_bytes=1kB", "--json")
    assert result.exit_code == 3
    assert json.loads(result.stdout)["error"]["smallest"] == {"weight_bytes": 1500.0}


@pytest.mark.parametrize(
    "arguments",
    [
        ("--budget", "weight_bytes=12"),
        ("--budget", "colour=red"),
        ("--budget", "weight_bytes"),
        ("--budget", "weight_bytes=50%", "--fix", "nowhere=w8"),
        ("--budget", "weight_bytes=50%", "--fix", "embed=w9"),
        ("--nonsense",),
        (),
    ],
)
def test_wrong_usage_exits_with_2(arguments: tuple[str, ...], tables: Path, invoke: Invoke) -> None:
    result = invoke("solve", tables, *arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr


def test_a_folder_without_tables_is_refused(tmp_path: Path, invoke: Invoke) -> None:
    result = invoke("solve", tmp_path, "--budget", "weight_bytes=50%")
    assert result.exit_code == 2
    assert "mpsearch measure" in result.stderr


def test_the_frontier_falls_and_is_optimal_everywhere(tables: Path, answer: Answer) -> None:
    points = answer("frontier", tables, "--points", "8")["points"]
    losses = [point["loss"] for point in points]
    assert losses == sorted(losses, reverse=True)
    for point in points:
        assert point["loss"] == pytest.approx(least_loss(round(point["limit"])))


@pytest.mark.parametrize("command", ["solve", "frontier"])
def test_people_read_a_table_instead_of_json(command: str, tables: Path, invoke: Invoke) -> None:
    result = invoke(command, tables, "--budget", "weight_bytes=50%")
    assert result.exit_code == 0, result.output
    assert "fp32" in result.stdout
    assert "{" not in result.stdout


def test_the_cache_is_shown_and_cleared_by_kind(tmp_path: Path, answer: Answer) -> None:
    store = Cache(folder=tmp_path)
    store.put("loss", content_hash(1), value={})
    store.put("range", content_hash(1), value={})
    shown = answer("cache", "--cache", tmp_path)
    assert {kind: held["values"] for kind, held in shown["kinds"].items()} == {
        "loss": 1,
        "range": 1,
    }
    assert answer("cache", "--cache", tmp_path, "--clear", "--kind", "loss")["deleted"] == 1
    assert answer("cache", "--cache", tmp_path, "--clear")["deleted"] == 1
    assert store.sizes() == {}


def test_an_unknown_kind_deletes_nothing(tmp_path: Path, invoke: Invoke) -> None:
    store = Cache(folder=tmp_path)
    store.put("loss", content_hash(1), value={})
    result = invoke("cache", "--cache", tmp_path, "--clear", "--kind", "nowhere")
    assert result.exit_code == 2
    assert "loss" in result.stderr
    assert set(store.sizes()) == {"loss"}


def test_the_doctor_tells_machine_versions_runtimes_and_cache(
    tmp_path: Path, answer: Answer
) -> None:
    told = answer("doctor", "--cache", tmp_path)
    assert told["runtimes"]["torch_cuda"] == bool(told["gpu"]["name"])
    assert bool(told["gpu"]["missing"]) != bool(told["gpu"]["name"])
    parts = {"processor", "versions", "runtimes", "gpu", "cache", "missing", "sandbox"}
    assert set(told) == parts
    assert set(told["sandbox"]["layers"]) <= {"landlock", "seccomp", "rlimits"}
    assert told["cache"]["folder"] == str(tmp_path)
    assert "numpy" in told["versions"]


def test_the_doctor_names_what_is_missing_and_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, answer: Answer, invoke: Invoke
) -> None:
    monkeypatch.setattr("mpsearch.cli.doctor.find_spec", lambda _: None)
    told = answer("doctor")
    missing = dict.fromkeys(("openvino", "onnxruntime", "torch", "torch_cuda"), False)
    assert told["runtimes"] == {**missing, "simulation": True}
    assert {"package": "torch", "for": "measuring a model"}.items() <= told["missing"][0].items()
    assert "pip install 'mpsearch[search]'" in invoke("doctor").stdout


@pytest.mark.parametrize(
    "command",
    ["doctor", "search", "measure", "solve", "frontier", "export", "verify", "report", "cache"],
)
def test_every_command_explains_itself_and_offers_json(command: str, invoke: Invoke) -> None:
    result = invoke(command, "--help")
    assert result.exit_code == 0
    assert "--json" in result.stdout


def test_the_version_is_shown(invoke: Invoke) -> None:
    assert invoke("--version").stdout.strip()
