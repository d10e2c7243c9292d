"""Laws of the guard: a worker that dies is started again, one that is stopped stays so."""

import time
from pathlib import Path

import pytest

from mpsearch.jobs.data_folder import DataFolder
from mpsearch.worker import guard
from mpsearch.worker.guard import WorkerGuard


def test_a_dead_worker_is_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "_FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(guard, "_LONGEST_PAUSE_SECONDS", 0.02)
    program = tmp_path / "program.py"
    starts = tmp_path / "starts"
    program.write_text(f"open({str(starts)!r}, 'a').write('x')\n")
    watch = WorkerGuard(DataFolder(path=tmp_path), roots={"models": tmp_path})
    assert f"--root=models={tmp_path}" in watch._command
    assert "--end-with-parent" in watch._command
    watch._command[1:] = [str(program)]
    watch.start()
    deadline = time.monotonic() + 60
    while not (starts.exists() and len(starts.read_text()) >= 3):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    watch.stop()
    counted = len(starts.read_text())
    time.sleep(0.3)
    assert len(starts.read_text()) == counted


def test_a_worker_that_cannot_be_started_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "_FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(guard, "_LONGEST_PAUSE_SECONDS", 0.02)
    started = tmp_path / "started"
    program = tmp_path / "program"
    watch = WorkerGuard(DataFolder(path=tmp_path), roots={})
    watch._command[:] = [str(program)]
    watch.start()
    time.sleep(0.1)
    program.write_text(f"#!/bin/sh\ntouch {started}\n")
    program.chmod(0o700)
    deadline = time.monotonic() + 60
    while not started.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    watch.stop()
