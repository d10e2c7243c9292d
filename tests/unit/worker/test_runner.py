"""Laws of the runner: the outcome is written last, and once."""

import errno
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mpsearch.errors import DataError
from mpsearch.worker.assignment import Assignment, load_assignment
from mpsearch.worker.inputs import Inputs
from mpsearch.worker.outcome import NO_ROOM, failed, load_outcome

REQUEST = {
    "model": {"root": "r", "path": "model"},
    "calibration": {"root": "r", "path": "data.jsonl"},
    "budgets": {"weight_bytes": "25%"},
}


def run(folder: Path) -> "subprocess.CompletedProcess[bytes]":
    with subprocess.Popen(
        [sys.executable, "-m", "mpsearch.worker.runner", str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        out, error = process.stdout.read(), process.stderr.read()
        code = process.wait()
    return subprocess.CompletedProcess([], code, out, error)


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
        assert process.wait() == NO_ROOM
    assert load_outcome(folder) is None


def test_a_full_disk_is_told_wherever_it_was_met() -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    wrapped = DataError("It cannot be written.")
    wrapped.__cause__ = full
    for error, told in ((full, True), (wrapped, True), (OSError(errno.EIO, "x"), False)):
        outcome = failed(error)
        assert outcome.error is not None
        assert outcome.error.type.endswith(":disk-full") == told
