"""Laws of the runner: the outcome is written last, and once."""

import errno
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mpsearch.errors import DataError
from mpsearch.jobs.request import JobRequest
from mpsearch.search.grouping import LayerGroup
from mpsearch.worker.assignment import Assignment, load_assignment
from mpsearch.worker.inputs import Inputs
from mpsearch.worker.outcome import NO_ROOM, failed, load_outcome

REQUEST = {
    "model": {"root": "r", "path": "model"},
    "calibration": {"root": "r", "path": "data.jsonl"},
    "budgets": {"weight_bytes": "25%"},
}


PATIENCE = 120.0

# Stands in for the search, and writes down what it is called with.
STAND_IN = """
import json, sys, types

def search(model, calibration, **called):
    with open("{called}", "w") as file:
        json.dump(called, file, default=str)
    raise ValueError

sys.modules["mpsearch.workflow.search"] = types.ModuleType("mpsearch.workflow.search")
sys.modules["mpsearch.workflow.search"].search = search
"""


def run(folder: Path, *, path: Path | None = None) -> "subprocess.CompletedProcess[bytes]":
    # Its stdin stays open, or it would end with it; what it says goes where it cannot wait.
    with (
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as error,
        subprocess.Popen(
            [sys.executable, "-m", "mpsearch.worker.runner", str(folder)],
            env=os.environ | ({} if path is None else {"PYTHONPATH": str(path)}),
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=error,
        ) as process,
    ):
        try:
            code = process.wait(timeout=PATIENCE)
        finally:
            process.kill()
        out.seek(0)
        error.seek(0)
        return subprocess.CompletedProcess([], code, out.read(), error.read())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "job"
    place.mkdir()
    inputs = Inputs(model=tmp_path / "model", data={"calibration": tmp_path / "data.jsonl"})
    Assignment(request=REQUEST, inputs=inputs, cache=tmp_path / "cache").save(place)
    return place


def test_an_assignment_survives_its_file(folder: Path) -> None:
    found: Any = load_assignment(folder)
    assert found.request == REQUEST
    assert found.inputs.data == {"calibration": folder.parent / "data.jsonl"}


def test_an_error_becomes_the_outcome_and_its_trace_the_log(folder: Path) -> None:
    done = run(folder)
    assert done.returncode == 0
    outcome = load_outcome(folder)
    assert outcome is not None
    assert outcome.error is not None
    assert str(folder.parent / "model") in outcome.error.detail
    assert b"Traceback" in done.stderr
    assert not (folder / "result").exists()


def test_every_field_of_a_request_reaches_the_search(folder: Path) -> None:
    asked: dict[str, Any] = {
        "budgets": {"latency@b4": "90%"},
        "max_drop": 0.5,
        "drop_of": "accuracy",
        "minimise": "weight_bytes",
        "task": "classification",
        "formats": ["w8"],
        "fixed": {"x": "w8"},
        "runtime": "simulation",
        "workloads": {"b1": {"batch": 1}, "b4": {"batch": 4}},
        "threads": 2,
        "seed": 7,
        "solver": "highs",
        "effort": 5.0,
        "seconds": 60.0,
        "ranges": "entropy",
        "pairs": "apart",
        "groups": "diffusion",
    }
    sources = {"model", "calibration", "validation", "test"}
    # Where it is searched is settled before.
    assert set(asked) == set(JobRequest.model_fields) - sources - {"queue"}
    assignment = load_assignment(folder)
    replace(assignment, request={**REQUEST, **asked}).save(folder)
    (folder / "sitecustomize.py").write_text(STAND_IN.format(called=folder / "called.json"))
    run(folder, path=folder)
    called = json.loads((folder / "called.json").read_text())
    assert {name: called[name] for name in asked} == asked
    assert {"validation", "test"} <= set(called)


def test_groups_of_a_request_are_those_of_the_search(folder: Path) -> None:
    groups = [
        {"name": "a", "layers": ["x*"], "metric": "sqnr_list"},
        {"name": "b", "layers": ["*"]},
    ]
    assignment = load_assignment(folder)
    replace(assignment, request={**REQUEST, "groups": groups}).save(folder)
    (folder / "sitecustomize.py").write_text(STAND_IN.format(called=folder / "called.json"))
    run(folder, path=folder)
    first, second = json.loads((folder / "called.json").read_text())["groups"]
    assert first == str(LayerGroup(name="a", layers=("x*",), metric="sqnr_list"))
    assert second == str(LayerGroup(name="b", layers=("*",)))


def test_what_is_not_ours_is_told_without_its_innards(folder: Path) -> None:
    (folder / "assignment.json").write_text("{")
    run(folder)
    outcome = load_outcome(folder)
    assert outcome is not None
    assert outcome.error is not None
    assert outcome.error.type.endswith(":internal")
    assert "ValidationError" in outcome.error.detail


def test_a_job_that_has_ended_is_not_run_again(folder: Path) -> None:
    (folder / "outcome.json").write_text(json.dumps({"error": None}))
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert run(folder).stdout == b""
    assert {p: p.read_bytes() for p in folder.iterdir() if p.name != "lock"} == before


TELLS = """
from mpsearch.core.progress import ProgressEvent
from mpsearch.worker.runner import _reporter
report = _reporter()
for done in range(10_000):
    report(ProgressEvent(phase="measure", done=done, total=10_000, seconds=1.0))
"""


def test_a_runner_goes_on_where_nobody_reads_its_steps() -> None:
    # As where its worker is frozen; each step that fits is whole.
    with subprocess.Popen([sys.executable, "-c", TELLS], stdout=subprocess.PIPE) as process:
        try:
            assert process.wait(timeout=60) == 0
        finally:
            process.kill()
        assert process.stdout is not None
        told = [json.loads(line)["done"] for line in process.stdout]
    assert told == list(range(len(told)))
    assert len(told) > 100


FULL = """
import errno, os, sys
from pathlib import Path
from mpsearch.core import files
from mpsearch.worker.runner import main
def full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")
files.os.fsync = full
main(Path(sys.argv[1]))
"""


def test_a_runner_without_room_for_its_outcome_says_so_by_its_exit(folder: Path) -> None:
    command = [sys.executable, "-c", FULL, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        try:
            assert process.wait(timeout=PATIENCE) == NO_ROOM
        finally:
            process.kill()
    assert load_outcome(folder) is None


def test_a_full_disk_is_told_wherever_it_was_met() -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    wrapped = DataError("It cannot be written.")
    wrapped.__cause__ = full
    for error, told in ((full, True), (wrapped, True), (OSError(errno.EIO, "x"), False)):
        outcome = failed(error)
        assert outcome.error is not None
        assert outcome.error.type.endswith(":disk-full") == told
