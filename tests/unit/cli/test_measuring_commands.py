"""Laws of the commands that need a model: what they pass on, write and show.

The work behind them is tested where it lives; here small fakes stand in for it.
"""

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from typer.testing import Result

from mpsearch.core.files import save_plan, save_table
from mpsearch.core.plan import Budget, Plan
from mpsearch.core.progress import tracked
from mpsearch.core.tables import SensitivityTable
from mpsearch.core.verification import Verification

Invoke = Callable[..., Result]
Answer = Callable[..., Any]
PLAN = Plan(
    assignment={"embed": "w8", "block.0": "fp32"},
    budgets=(Budget(name="latency", text="4ms", limit=4e6, unit="ns"),),
    gap=0.0,
    origin="optimum on base fp32",
)
ROWS = (
    Verification(quantity="latency", unit="ns", measured=3.9e6, predicted=4e6, tolerance=2e5),
    Verification(quantity="loss", unit="", measured=9.0, predicted=1.0, passed=False),
)
TABLE = SensitivityTable(
    layers=("embed",),
    formats=("fp32", "w8"),
    loss=np.array([[0.0, np.nan]]),
    stderr=np.array([[0.0, 0.1]]),
    metric="output_error",
    unit="squared output error",
)


@dataclass(frozen=True, kw_only=True)
class FakeResult:
    """What a search returns, as far as the command looks at it."""

    plan: Plan = PLAN
    verification: tuple[Verification, ...] = ROWS
    phases: Mapping[str, float] = field(default_factory=lambda: {"solve": 0.5})
    notes: tuple[str, ...] = ("No validation data was given.",)
    sensitivity: SensitivityTable = TABLE

    def save(self, folder: Path) -> None:
        save_plan(self.plan, folder / "plan.json")
        save_table(self.sensitivity, folder / "sensitivity.npz")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """Put fakes in the place of the work; return the arguments that each was called with."""
    seen: dict[str, dict[str, Any]] = {}

    def working(name: str, result: object) -> Callable[..., object]:
        def work(*arguments: object, **options: Any) -> object:  # noqa: ANN401 whatever is passed
            seen[name] = {"arguments": arguments, **options}
            list(tracked(range(3), "work", total=3, progress=options.get("progress")))
            print("chatter of a library")  # noqa: T201 what libraries do
            if name == "export":
                options["path"].write_bytes(b"onnx")
            return result

        return work

    results = {
        "search": FakeResult(),
        "measure": FakeResult(),
        "verify": ROWS,
        "export": None,
        "report": None,
    }
    for name, result in results.items():
        module = ModuleType(f"mpsearch.workflow.{name}")
        setattr(module, name, working(name, result))
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return seen


def test_search_passes_everything_on_and_shows_the_proof(
    calls: dict[str, dict[str, Any]], tmp_path: Path, answer: Answer
) -> None:
    found = answer(
        "search",
        *("--model", "minilm", "--calibration", "train.npz", "--test", "test.npz"),
        *("--budget", "weight_bytes=18%", "--budget", "latency=115% of fastest"),
        *("--format", "w8a8", "--format", "w8", "--fix", "embed=w8"),
        *("--workload", "b1:batch=1,length=32", "--threads", "2", "--seed", "7"),
        *("--effort", "5", "--seconds", "60", "--output", tmp_path),
        *("--ranges", "entropy", "--pairs", "apart"),
    )
    call = calls["search"]
    assert call.pop("arguments") == (Path("minilm"), Path("train.npz"))
    assert callable(call.pop("progress"))
    assert call == {
        "budgets": {"weight_bytes": "18%", "latency": "115% of fastest"},
        "task": "auto",
        "validation": None,
        "test": Path("test.npz"),
        "formats": ["w8a8", "w8"],
        "fixed": {"embed": "w8"},
        "runtime": "openvino",
        "workloads": {"b1": {"batch": 1, "length": 32}},
        "threads": 2,
        "seed": 7,
        "cache": None,
        "solver": "auto",
        "max_drop": None,
        "drop_of": None,
        "minimise": "latency",
        "effort": 5.0,
        "seconds": 60.0,
        "groups": None,
        "ranges": "entropy",
        "pairs": "apart",
    }
    assert found["plan"]["assignment"] == PLAN.assignment
    assert [row["passed"] for row in found["verification"]] == [True, False]
    assert found["files"]["plan.json"] == str(tmp_path / "plan.json")


def test_people_see_plan_budgets_proof_notes_and_files(
    calls: dict[str, dict[str, Any]], tmp_path: Path, invoke: Invoke
) -> None:
    given = ("--model", "minilm", "--calibration", "train.npz", "--budget", "latency=4ms")
    result = invoke("search", *given, "--output", tmp_path)
    assert result.exit_code == 0, result.output
    assert set(calls) == {"search"}
    for expected in (
        "2 layers on base fp32",
        "at most 4.00 ms",
        "proven optimal",
        "MISSED",
        "No validation data was given.",
        "plan.json",
    ):
        assert expected in result.stdout
    assert "chatter" not in result.stdout
    assert "work: 3/3" in result.stderr


def test_measure_writes_tables_and_turns_what_was_not_measured_into_null(
    calls: dict[str, dict[str, Any]], tmp_path: Path, answer: Answer
) -> None:
    found = answer(
        "measure", "--model", "minilm", "--calibration", "train.npz", "--output", tmp_path
    )
    assert calls["measure"]["formats"] is None
    assert found["loss"] == [[0.0, None]]
    assert found["combining"] is None
    assert found["files"] == {"sensitivity": str(tmp_path / "sensitivity.npz")}


@pytest.fixture
def plan_file(tmp_path: Path) -> Path:
    """Write a plan."""
    save_plan(PLAN, tmp_path / "plan.json")
    return tmp_path / "plan.json"


def test_export_writes_the_file_of_the_plan(
    calls: dict[str, dict[str, Any]], plan_file: Path, answer: Answer
) -> None:
    path = plan_file.with_name("model.onnx")
    found = answer("export", plan_file, "--model", "minilm", "--output", path)
    assert calls["export"] == {
        "arguments": (Path("minilm"), PLAN),
        "path": path,
        "example": None,
    }
    assert found == {"files": {"model": str(path)}, "bytes": 4}


def test_verify_tells_whether_everything_held(
    calls: dict[str, dict[str, Any]], plan_file: Path, answer: Answer
) -> None:
    found = answer("verify", plan_file, "--model", "minilm", "--data", "test.npz")
    assert calls["verify"]["arguments"] == (Path("minilm"), PLAN)
    assert calls["verify"]["data"] == Path("test.npz")
    assert found["passed"] is False


def test_report_goes_beside_the_result_unless_told_otherwise(
    calls: dict[str, dict[str, Any]], tmp_path: Path, answer: Answer
) -> None:
    assert answer("report", tmp_path)["files"] == {"report": str(tmp_path / "report.html")}
    assert calls["report"]["arguments"] == (tmp_path, tmp_path / "report.html")


def test_a_newer_plan_exits_with_2(plan_file: Path, invoke: Invoke) -> None:
    newer = json.loads(plan_file.read_text()) | {"schema_version": 99}
    plan_file.write_text(json.dumps(newer))
    result = invoke("verify", plan_file, "--model", "minilm", "--data", "test.npz")
    assert result.exit_code == 2
    assert "Upgrade mpsearch" in result.stderr


@pytest.mark.parametrize("command", ["search", "measure"])
def test_a_mistake_is_told_before_any_work(
    command: str, calls: dict[str, dict[str, Any]], tmp_path: Path, invoke: Invoke
) -> None:
    budget = ("--budget", "latency=4ms") if command == "search" else ()
    given = ("--calibration", "train.npz", "--output", tmp_path, *budget)
    assert invoke(command, *given).exit_code == 2
    assert invoke(command, *given, "--model", "x", "--workload", "wrong").exit_code == 2
    assert calls == {}
