"""Laws of supervision: a job ends once, whatever becomes of its runners."""

import errno
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from mpsearch.jobs.data_folder import owned
from mpsearch.jobs.job import JobState
from mpsearch.worker import attempts
from mpsearch.worker.attempts import GIVE_UP_AFTER
from mpsearch.worker.outcome import load_outcome
from mpsearch.worker.supervise import Supervisor

REQUEST = {
    "model": {"root": "r", "path": "model"},
    "calibration": {"root": "r", "path": "data.jsonl"},
    "budgets": {"weight_bytes": "25%"},
}
KILL = "os.kill(os.getpid(), signal.SIGKILL)\n"


def starts(supervisor: Supervisor, job_id: str) -> int:
    return len((supervisor.data.job(job_id) / "starts").read_text())


def test_a_job_that_ends_well_succeeds(supervisor: Supervisor, runs: Callable[[str], None]) -> None:
    runs("report(0)\nreport(5)\nreport(9)\nend()")
    job = supervisor.store.add(REQUEST)
    assert supervisor.run(job.id) == "succeeded"
    ended = supervisor.store.get(job.id)
    assert ended.progress is not None
    assert ended.progress["done"] == 9
    assert ended.error is None


def test_a_job_that_ends_by_an_error_fails_with_it(
    supervisor: Supervisor, runs: Callable[[str], None]
) -> None:
    runs('end({"type": "t", "title": "x", "detail": "d", "smallest": {"latency": 4.0}})')
    job = supervisor.store.add(REQUEST)
    assert supervisor.run(job.id) == "failed"
    error = supervisor.store.get(job.id).error
    assert error is not None
    assert error["smallest"] == {"latency": 4.0}


def test_a_runner_that_has_told_its_outcome_and_hangs_is_ended(
    supervisor: Supervisor, runs: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "_SECONDS_TO_END", 0.5)
    runs("report(9)\nend()\ntime.sleep(3600)")
    job = supervisor.store.add(REQUEST)
    assert supervisor.run(job.id) == "succeeded"
    assert starts(supervisor, job.id) == 1


def test_a_killed_runner_is_started_again(
    supervisor: Supervisor, runs: Callable[[str], None]
) -> None:
    runs(f"report(1)\nif start < 3: {KILL}\nend()")
    job = supervisor.store.add(REQUEST)
    assert supervisor.run(job.id) == "succeeded"
    assert starts(supervisor, job.id) == 3


def test_runners_that_get_further_are_started_as_often_as_needed(
    supervisor: Supervisor, runs: Callable[[str], None]
) -> None:
    more = GIVE_UP_AFTER + 2
    runs(f"[report(min(n, 9)) for n in range(start)]\nif start < {more}: {KILL}\nend()")
    job = supervisor.store.add(REQUEST)
    # A report is thinned out in time, so each runner is told apart by its last step.
    runs(f"[(report(9), time.sleep(0.02)) for _ in range(start)]\nif start < {more}: {KILL}\nend()")
    assert supervisor.run(job.id) == "succeeded"
    assert starts(supervisor, job.id) == more


def test_a_job_that_kills_its_runners_is_given_up(
    supervisor: Supervisor, runs: Callable[[str], None]
) -> None:
    runs(f"report(1)\n{KILL}")
    job = supervisor.store.add(REQUEST)
    assert supervisor.run(job.id) == "failed"
    error = supervisor.store.get(job.id).error
    assert error is not None
    assert error["type"].endswith(":runner-died")
    assert "3 processes in a row died at the same step" in error["detail"]
    assert "the last one by signal SIGKILL" in error["detail"]
    assert starts(supervisor, job.id) == GIVE_UP_AFTER == 3


def test_a_job_that_kills_its_worker_is_given_up(
    supervisor: Supervisor, runs: Callable[[str], None]
) -> None:
    runs("end()")
    job = supervisor.store.add(REQUEST)
    for _ in range(GIVE_UP_AFTER):  # each time a worker began, and was no more
        supervisor.store.claim(job.id)
        supervisor.store.start(job.id)
        supervisor.store.count_start(job.id)
    assert supervisor.run(job.id) == "failed"
    error = supervisor.store.get(job.id).error
    assert error is not None
    assert "and their worker with them" in error["detail"]
    assert not (supervisor.data.job(job.id) / "starts").exists()


def test_a_runner_that_finds_the_disk_full_fails_its_job_with_that(
    supervisor: Supervisor, runs: Callable[[str], None]
) -> None:
    runs("report(1)\nsys.exit(74)")
    job = supervisor.store.add(REQUEST)
    assert supervisor.run(job.id) == "failed"
    error = supervisor.store.get(job.id).error
    assert error is not None
    assert error["type"].endswith(":disk-full")
    assert "make room" in error["detail"]
    assert starts(supervisor, job.id) == 1


def test_a_worker_that_finds_the_disk_full_fails_the_job_with_that(
    supervisor: Supervisor, runs: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    runs("end()")
    job = supervisor.store.add(REQUEST)
    monkeypatch.setattr("mpsearch.worker.assignment.write_atomically", full)
    assert supervisor.run(job.id) == "failed"
    error = supervisor.store.get(job.id).error
    assert error is not None
    assert error["type"].endswith(":disk-full")


def test_a_database_that_fails_while_steps_are_kept_ends_the_attempt_and_not_the_job(
    supervisor: Supervisor, runs: Callable[[str], None]
) -> None:
    runs("report(1)\n" + "report(2)\n" * 100_000 + "time.sleep(600)")
    job = supervisor.store.add(REQUEST)
    with supervisor.store.engine.begin() as connection:
        connection.execute(text("alter table job_events rename to elsewhere"))
        # What does not note an event still works: nobody but the reader sees the fault.
        connection.execute(text("update jobs set state = 'running'"))
    failing = replace(supervisor, store=replace(supervisor.store))
    with pytest.raises(DBAPIError):
        failing.run(job.id)
    assert supervisor.store.get(job.id).state is JobState.RUNNING
    with supervisor.store.engine.begin() as connection:
        connection.execute(text("alter table elsewhere rename to job_events"))
    runs("end()")
    assert supervisor.run(job.id) == "succeeded"


def test_a_runner_that_says_what_it_must_not_ends_its_job(
    supervisor: Supervisor, runs: Callable[[str], None]
) -> None:
    runs("print('not a step', flush=True)\ntime.sleep(600)")
    job = supervisor.store.add(REQUEST)
    with pytest.raises(ValidationError):
        supervisor.run(job.id)


def test_a_cancelled_job_ends_within_a_second(
    supervisor: Supervisor, runs: Callable[[str], None]
) -> None:
    runs("report(1)\ntime.sleep(600)")
    job = supervisor.store.add(REQUEST)
    thread = threading.Thread(target=supervisor.run, args=(job.id,))
    thread.start()
    while supervisor.store.get(job.id).progress is None:
        time.sleep(0.01)
    asked = time.monotonic()
    assert supervisor.store.cancel(job.id).state is JobState.CANCELLING
    thread.join()
    assert time.monotonic() - asked < 2  # one on a machine with nothing else to do
    assert supervisor.store.get(job.id).state is JobState.CANCELLED


def test_a_cancelled_job_is_not_started(
    supervisor: Supervisor, runs: Callable[[str], None]
) -> None:
    runs("end()")
    waiting, asked = supervisor.store.add(REQUEST), supervisor.store.add(REQUEST)
    api = replace(supervisor.store, owner=None)
    api.cancel(waiting.id)
    supervisor.store.claim(asked.id)
    supervisor.store.start(asked.id)
    api.cancel(asked.id)  # and then its worker was killed
    for job in (waiting, asked):
        assert supervisor.run(job.id) == "cancelled"
        assert not (supervisor.data.job(job.id) / "starts").exists()


def test_what_ended_before_its_worker_was_killed_is_not_run_again(
    supervisor: Supervisor, runs: Callable[[str], None]
) -> None:
    runs("end()")
    job = supervisor.store.add(REQUEST)
    supervisor.store.claim(job.id)
    supervisor.store.start(job.id)
    folder = supervisor.data.job(job.id)
    folder.mkdir(parents=True)
    (folder / "outcome.json").write_text('{"error": null}')
    assert supervisor.run(job.id) == supervisor.run(job.id) == "succeeded"
    assert not (folder / "starts").exists()


def test_a_line_cut_off_by_a_kill_is_no_step(
    supervisor: Supervisor, runs: Callable[[str], None]
) -> None:
    runs('report(3)\nsys.stdout.write(\'{"phase": "mea\')\nsys.stdout.flush()\nend()')
    job = supervisor.store.add(REQUEST)
    assert supervisor.run(job.id) == "succeeded"
    progress = supervisor.store.get(job.id).progress
    assert progress is not None
    assert progress["done"] == 3


def test_no_outcome_is_none(tmp_path: Path) -> None:
    assert load_outcome(tmp_path) is None


def test_a_job_that_another_worker_took_is_left_to_it(
    supervisor: Supervisor, runs: Callable[[str], None]
) -> None:
    runs("report(1)\ntime.sleep(600)")
    job = supervisor.store.add(REQUEST)
    thread = threading.Thread(target=supervisor.run, args=(job.id,))
    thread.start()
    while supervisor.store.get(job.id).progress is None:
        time.sleep(0.01)
    other = replace(supervisor.store, owner="two")
    other.claim(job.id)
    time.sleep(1)
    assert thread.is_alive()
    assert supervisor.store.get(job.id).state is JobState.RUNNING
    assert other.finish(job.id, state=JobState.SUCCEEDED)
    thread.join()
    assert supervisor.store.get(job.id).state is JobState.SUCCEEDED


def test_what_the_runner_of_a_frozen_worker_uses_stays_and_its_end_counts(
    supervisor: Supervisor, runs: Callable[[str], None]
) -> None:
    runs("end()")
    job = supervisor.store.add(REQUEST)
    folder = supervisor.data.job(job.id)
    scratch = folder / "scratch" / "mine"
    scratch.mkdir(parents=True)
    with owned(folder / "lock"):
        thread = threading.Thread(target=supervisor.run, args=(job.id,))
        thread.start()
        time.sleep(1.5)
        assert thread.is_alive()
        assert scratch.exists()
        (folder / "outcome.json").write_text('{"error": null}')
        thread.join(timeout=60)
    assert supervisor.store.get(job.id).state is JobState.SUCCEEDED
    assert not (folder / "starts").exists()


def test_a_source_that_is_gone_fails_the_job_with_its_name(
    supervisor: Supervisor, runs: Callable[[str], None]
) -> None:
    runs("end()")
    job = supervisor.store.add({**REQUEST, "model": {"root": "r", "path": "gone"}})
    assert supervisor.run(job.id) == "failed"
    error = supervisor.store.get(job.id).error
    assert error is not None
    assert "holds no 'gone'" in error["detail"]
    assert not (supervisor.data.job(job.id) / "starts").exists()
