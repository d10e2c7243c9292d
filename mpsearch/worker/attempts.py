"""One process after another at work on one thing: watched, ended on request, started again."""

import shutil
import signal
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, final

from pydantic import TypeAdapter, ValidationError

from mpsearch.core.progress import ProgressEvent
from mpsearch.errors import ConflictError, MpsearchError
from mpsearch.jobs.blobs import blob_store
from mpsearch.jobs.data_folder import DataFolder, owned
from mpsearch.jobs.job import Job
from mpsearch.jobs.problem import problem_named
from mpsearch.jobs.request import JobRequest
from mpsearch.jobs.sources import Sources
from mpsearch.worker.assignment import LOCK, Assignment
from mpsearch.worker.inputs import Inputs, laid_out
from mpsearch.worker.outcome import (
    NO_ROOM,
    Outcome,
    failed,
    is_no_room,
    no_room,
    seconds_since_outcome,
)
from mpsearch.worker.sandbox.launch import launched
from mpsearch.worker.sandbox.rules import Rules, rules_for

# So many runners in a row that died at the same step: the job kills them, or their worker.
GIVE_UP_AFTER: Final = 3
_SECONDS_BETWEEN_LOOKS: Final = 0.2
# Often enough for an eye, seldom enough for a disk.
_SECONDS_BETWEEN_REPORTS: Final = 0.1
# What a runner that has told its outcome may take to end: libraries can hang while Python ends.
_SECONDS_TO_END: Final = 10.0
# A job can wait for its uploads.
_PATIENCE_SECONDS: Final = 180.0
_EVENT: Final = TypeAdapter(ProgressEvent)


class AbstractDuty(ABC):
    """What runners work on: a job, or a shard of one."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Return what is ended if runners die, in a word or two."""

    @property
    @abstractmethod
    def folder(self) -> Path:
        """Return where the runner writes."""

    @property
    @abstractmethod
    def inputs(self) -> Path:
        """Return where files that only it reads are laid out."""

    @abstractmethod
    def assignment(self, request: Mapping[str, Any], *, inputs: Inputs, cache: Path) -> Assignment:
        """Return what the runner is told."""

    @abstractmethod
    def goes_on(self) -> bool:
        """Return whether it shall be worked on."""

    @abstractmethod
    def report(self, event: ProgressEvent, *, step: int) -> None:
        """Keep a step."""

    @abstractmethod
    def count_start(self) -> int:
        """Count one more runner; return how many have tried the present step."""

    @abstractmethod
    def finish(self, outcome: Outcome) -> None:
        """End it."""


@final
@dataclass(frozen=True, kw_only=True)
class Attempts:
    """Starts runners in a data folder, for one duty at a time."""

    data: DataFolder
    roots: Mapping[str, Path]
    longest_seconds: float

    def make(self, duty: AbstractDuty, *, job: Job, died: str) -> str:
        """Let one runner work until it ends, is cancelled, or is one too many; say how it ended.

        `died` is how the one before it ended, where that is known.
        """
        try:
            return self._make(duty, job=job, died=died)
        except OSError as error:
            if not is_no_room(error):
                raise
            duty.finish(no_room())
            return died

    def _make(self, duty: AbstractDuty, *, job: Job, died: str) -> str:
        if duty.count_start() > GIVE_UP_AFTER:
            duty.finish(_given_up(died, name=duty.name))
            return died
        folder = duty.folder
        folder.mkdir(parents=True, exist_ok=True)
        try:
            blobs = blob_store(self.data, patience_seconds=_PATIENCE_SECONDS)
            inputs = laid_out(
                JobRequest.model_validate(job.request),
                sources=Sources(roots=self.roots, blobs=blobs),
                folder=duty.inputs,
            )
        except (MpsearchError, ValidationError, OSError) as error:
            duty.finish(failed(error))
            return died
        cache = self.data.cache(job.tenant)
        cache.mkdir(parents=True, exist_ok=True)
        duty.assignment(job.request, inputs=inputs, cache=cache).save(folder)
        rules = rules_for(readable=inputs.places, writable=(folder, cache))
        with (folder / "runner.log").open("ab") as log:
            return self._watch(duty, _runner(folder, rules=rules, log=log))

    def _watch(self, duty: AbstractDuty, runner: "subprocess.Popen[bytes]") -> str:
        deadline = time.monotonic() + self.longest_seconds
        assert runner.stdout is not None
        faults: list[Exception] = []
        reader = threading.Thread(target=_read, args=(duty, runner.stdout, faults), daemon=True)
        reader.start()
        try:
            while runner.poll() is None and not faults:
                if time.monotonic() > deadline:
                    duty.finish(_too_long(self.longest_seconds))
                if not duty.goes_on() or seconds_since_outcome(duty.folder) > _SECONDS_TO_END:
                    runner.kill()
                time.sleep(_SECONDS_BETWEEN_LOOKS)
        finally:
            runner.kill()
            code = runner.wait()
            reader.join()
        if faults:
            raise faults[0]
        if code == NO_ROOM:
            duty.finish(no_room())
        return _told(code)


def is_running(folder: Path) -> bool:
    """Return whether a runner works in a folder, of whichever worker."""
    try:
        with owned(folder / LOCK, wait=False):
            return False
    except ConflictError:
        return True


def _runner(folder: Path, *, rules: Rules, log: IO[bytes]) -> "subprocess.Popen[bytes]":
    scratch = folder / "scratch"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    # Its stdin is never written to: it closes when we go, and then the runner goes too.
    return launched("mpsearch.worker.runner", str(folder), rules=rules, scratch=scratch, log=log)


def _read(duty: AbstractDuty, lines: IO[bytes], faults: list[Exception], /) -> None:  # noqa: PLR0917  # as a thread calls it
    """Report steps until there are no more; a fault ends the attempt, or it would hang."""
    try:
        _report(duty, lines)
    except Exception as error:  # noqa: BLE001  # handed over to whoever waits
        faults.append(error)


def _report(duty: AbstractDuty, lines: IO[bytes]) -> None:
    last, phase = 0.0, ""
    for step, line in enumerate(lines, start=1):
        if not line.endswith(b"\n"):  # cut off by a kill
            return
        event, now = _EVENT.validate_json(line), time.monotonic()
        is_edge = event.phase != phase or event.done == event.total
        if is_edge or now - last >= _SECONDS_BETWEEN_REPORTS:
            duty.report(event, step=step)
            last, phase = now, event.phase


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


def _given_up(died: str, *, name: str) -> Outcome:
    # Where it ended the worker as well, nobody has seen how its runner ended.
    how = f"the last one by {died}" if died else "and their worker with them"
    return Outcome(
        error=problem_named(
            "runner-died",
            title="The job ends every process that runs it",
            detail=f"{GIVE_UP_AFTER} processes in a row died at the same step of {name} without an "
            f"error of their own, {how}. Expected enough memory for the model. The job's log on "
            "the server may say more; post it again with a smaller model, or where there is more "
            "memory.",
        )
    )
