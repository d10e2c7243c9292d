"""Runs one job in a child process: passes its progress on, ends it on request, starts it again."""

import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, final

from pydantic import TypeAdapter, ValidationError

from mpsearch.core.progress import ProgressEvent
from mpsearch.errors import ConflictError, MpsearchError
from mpsearch.jobs.blobs import blob_store
from mpsearch.jobs.data_folder import DataFolder, owned
from mpsearch.jobs.job import Job, JobState
from mpsearch.jobs.problem import problem_named
from mpsearch.jobs.request import JobRequest
from mpsearch.jobs.sources import Sources
from mpsearch.jobs.store import JobStore
from mpsearch.worker.assignment import LOCK, Assignment
from mpsearch.worker.inputs import laid_out
from mpsearch.worker.outcome import (
    NO_ROOM,
    Outcome,
    failed,
    is_no_room,
    load_outcome,
    no_room,
)
from mpsearch.worker.sandbox.launch import launched
from mpsearch.worker.sandbox.rules import Rules, rules_for

# So many runners in a row that died at the same step: the job kills them, or their worker.
GIVE_UP_AFTER: Final = 3
_SECONDS_BETWEEN_LOOKS: Final = 0.2
_SECONDS_BETWEEN_LOOKS_AT_OTHERS: Final = 1.0
# Often enough for an eye, seldom enough for a disk.
_SECONDS_BETWEEN_REPORTS: Final = 0.1
# A job can wait for its uploads.
_PATIENCE_SECONDS: Final = 180.0
_EVENT: Final = TypeAdapter(ProgressEvent)


@final
@dataclass(frozen=True, kw_only=True)
class Supervisor:
    """Brings jobs to their end, one at a time, so that nothing disturbs what is timed."""

    data: DataFolder
    store: JobStore
    roots: Mapping[str, Path]
    longest_seconds: float = 86_400.0

    def run(self, job_id: str) -> str:
        """Run a job until it has ended; return its last state. Can be repeated at any time.

        A job that another worker takes over meanwhile is left to it.
        """
        self.store.claim(job_id)
        died = ""
        while not (job := self.store.get(job_id)).is_done:
            outcome = load_outcome(self.data.job(job_id))
            if job.owner != self.store.owner:
                time.sleep(_SECONDS_BETWEEN_LOOKS_AT_OTHERS)
            elif outcome is not None:
                self._finish(job_id, outcome)
            elif job.state is JobState.CANCELLING:
                self.store.finish(job_id, state=JobState.CANCELLED)
            elif _is_running(self.data.job(job_id)):
                # Of a worker that froze: its files must stay under it, and its end is as good.
                time.sleep(_SECONDS_BETWEEN_LOOKS_AT_OTHERS)
            elif self.store.start(job_id):
                died = self._attempt_if_there_is_room(job, died=died)
        shutil.rmtree(self.data.inputs(job_id), ignore_errors=True)
        return job.state

    def _finish(self, job_id: str, outcome: Outcome) -> None:
        if outcome.error is None:
            self.store.finish(job_id, state=JobState.SUCCEEDED)
        else:
            error = outcome.error.model_dump(exclude_none=True)
            self.store.finish(job_id, state=JobState.FAILED, error=error)

    def _attempt_if_there_is_room(self, job: Job, *, died: str) -> str:
        try:
            return self._attempt(job, died=died)
        except OSError as error:
            if not is_no_room(error):
                raise
            self._finish(job.id, no_room())
            return died

    def _attempt(self, job: Job, *, died: str) -> str:
        """Let one runner work until it ends, is cancelled, or is one too many; say how it ended.

        `died` is how the one before it ended, where that is known.
        """
        if self.store.count_start(job.id) > GIVE_UP_AFTER:
            self._finish(job.id, _given_up(died))
            return died
        folder = self.data.job(job.id)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            blobs = blob_store(self.data, patience_seconds=_PATIENCE_SECONDS)
            inputs = laid_out(
                JobRequest.model_validate(job.request),
                sources=Sources(roots=self.roots, blobs=blobs),
                folder=self.data.inputs(job.id),
            )
        except (MpsearchError, ValidationError, OSError) as error:
            self._finish(job.id, failed(error))
            return died
        cache = self.data.cache(job.tenant)
        cache.mkdir(parents=True, exist_ok=True)
        Assignment(request=job.request, inputs=inputs, cache=cache).save(folder)
        rules = rules_for(readable=inputs.places, writable=(folder, cache))
        with (folder / "runner.log").open("ab") as log:
            return self._watch(job.id, _runner(folder, rules=rules, log=log))

    def _watch(self, job_id: str, runner: "subprocess.Popen[bytes]") -> str:
        deadline = time.monotonic() + self.longest_seconds
        assert runner.stdout is not None
        faults: list[Exception] = []
        reader = threading.Thread(
            target=self._read, args=(job_id, runner.stdout, faults), daemon=True
        )
        reader.start()
        try:
            while runner.poll() is None and not faults:
                if time.monotonic() > deadline:
                    self._finish(job_id, _too_long(self.longest_seconds))
                if not self.store.goes_on(job_id):
                    runner.kill()
                time.sleep(_SECONDS_BETWEEN_LOOKS)
        finally:
            runner.kill()
            code = runner.wait()
            reader.join()
        if faults:
            raise faults[0]
        if code == NO_ROOM:
            self._finish(job_id, no_room())
        return _told(code)

    def _read(self, job_id: str, lines: IO[bytes], faults: list[Exception], /) -> None:  # noqa: PLR0917  # as a thread calls it
        """Report steps until there are no more; a fault ends the attempt, or it would hang."""
        try:
            self._report(job_id, lines)
        except Exception as error:  # noqa: BLE001  # handed over to whoever waits
            faults.append(error)

    def _report(self, job_id: str, lines: IO[bytes]) -> None:
        last, phase = 0.0, ""
        for step, line in enumerate(lines, start=1):
            if not line.endswith(b"\n"):  # cut off by a kill
                return
            event, now = _EVENT.validate_json(line), time.monotonic()
            is_edge = event.phase != phase or event.done == event.total
            if is_edge or now - last >= _SECONDS_BETWEEN_REPORTS:
                self.store.report(job_id, event, step=step)
                last, phase = now, event.phase


def _runner(folder: Path, *, rules: Rules, log: IO[bytes]) -> "subprocess.Popen[bytes]":
    scratch = folder / "scratch"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    # Its stdin is never written to: it closes when we go, and then the runner goes too.
    return launched("mpsearch.worker.runner", str(folder), rules=rules, scratch=scratch, log=log)


def _is_running(folder: Path) -> bool:
    try:
        with owned(folder / LOCK, wait=False):
            return False
    except ConflictError:
        return True


def _too_long(seconds: float) -> Outcome:
    return Outcome(
        error=problem_named(
            "too-long",
            title="The job takes too long",
            detail=f"A process worked on the job for {seconds:.0f} s. Expected less. What was "
            "measured is kept: post it again to go on, or post less data or a smaller model.",
        )
    )


def _told(code: int) -> str:
    if code >= 0:
        return f"exit status {code}"
    known = {each.value: each.name for each in signal.Signals}
    return f"signal {known.get(-code, -code)}"


def _given_up(died: str) -> Outcome:
    # Where the job ended the worker as well, nobody has seen how its runner ended.
    how = f"the last one by {died}" if died else "and their worker with them"
    return Outcome(
        error=problem_named(
            "runner-died",
            title="The job ends every process that runs it",
            detail=f"{GIVE_UP_AFTER} processes in a row died at the same step without an error of "
            f"their own, {how}. Expected enough memory for the model. The job's log on the server "
            "may say more; post it again with a smaller model, or where there is more memory.",
        )
    )
