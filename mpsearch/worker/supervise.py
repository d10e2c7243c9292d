"""Runs one job in a child process: passes its progress on, ends it on request, starts it again."""

import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, final

from pydantic import TypeAdapter

from mpsearch.core.progress import ProgressEvent
from mpsearch.jobs.data_folder import DataFolder
from mpsearch.jobs.problem import problem_named
from mpsearch.jobs.store import JobState, JobStore
from mpsearch.worker.assignment import Assignment
from mpsearch.worker.outcome import Outcome, load_outcome

# So many runners in a row that got no further than one before them: the job kills them.
GIVE_UP_AFTER: Final = 5
_SECONDS_BETWEEN_LOOKS: Final = 0.2
# Often enough for an eye, seldom enough for a disk.
_SECONDS_BETWEEN_REPORTS: Final = 0.1
_EVENT: Final = TypeAdapter(ProgressEvent)


@final
@dataclass(frozen=True, kw_only=True)
class Supervisor:
    """Brings jobs to their end, one at a time, so that nothing disturbs what is timed."""

    data: DataFolder
    store: JobStore
    roots: Mapping[str, Path]

    def run(self, job_id: str) -> str:
        """Run a job until it has ended; return its last state. Can be repeated at any time."""
        while True:
            outcome = load_outcome(self.data.job(job_id))
            if outcome is None and self.store.is_cancelling(job_id):
                self.store.finish(job_id, state=JobState.CANCELLED)
            elif outcome is not None:
                self._finish(job_id, outcome)
            elif self.store.start(job_id):
                self._attempt(job_id)
                continue
            return self.store.get(job_id).state

    def _finish(self, job_id: str, outcome: Outcome) -> None:
        if outcome.error is None:
            self.store.finish(job_id, state=JobState.SUCCEEDED)
        else:
            error = outcome.error.model_dump(exclude_none=True)
            self.store.finish(job_id, state=JobState.FAILED, error=error)

    def _attempt(self, job_id: str) -> None:
        """Let one runner work until it ends, is cancelled, or is one too many."""
        if self.store.count_start(job_id) > GIVE_UP_AFTER:
            self._finish(job_id, _given_up())
            return
        folder = self.data.job(job_id)
        folder.mkdir(parents=True, exist_ok=True)
        Assignment(
            request=self.store.get(job_id).request,
            roots=self.roots,
            blobs=self.data.blobs,
            cache=self.data.cache,
        ).save(folder)
        with (folder / "runner.log").open("ab") as log:
            self._watch(job_id, _runner(folder, log=log))

    def _watch(self, job_id: str, runner: "subprocess.Popen[bytes]") -> None:
        assert runner.stdout is not None
        reader = threading.Thread(target=self._report, args=(job_id, runner.stdout), daemon=True)
        reader.start()
        try:
            while runner.poll() is None:
                if self.store.is_cancelling(job_id):
                    runner.kill()
                time.sleep(_SECONDS_BETWEEN_LOOKS)
        finally:
            runner.kill()
            runner.wait()
            reader.join()

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


def _runner(folder: Path, *, log: IO[bytes]) -> "subprocess.Popen[bytes]":
    # Its stdin is never written to: it closes when we go, and then the runner goes too.
    return subprocess.Popen(  # noqa: S603  # our own module, and a folder that we made
        [sys.executable, "-m", "mpsearch.worker.runner", str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
    )


def _given_up() -> Outcome:
    return Outcome(
        error=problem_named(
            "runner-died",
            title="The job ends every process that runs it",
            detail=f"{GIVE_UP_AFTER} processes in a row died at the same step, without an error of "
            "their own. Expected enough memory for the model. The job's log on the server may say "
            "more; post it again with a smaller model, or where there is more memory.",
        )
    )
