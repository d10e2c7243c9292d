"""Brings jobs to their end: one runner at a time, or shards of other workers in between."""

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from mpsearch.jobs.data_folder import DataFolder
from mpsearch.jobs.job import JobState
from mpsearch.jobs.shards import ShardStore
from mpsearch.jobs.store import JobStore
from mpsearch.worker.attempts import Attempts, is_running
from mpsearch.worker.divided import load_shards
from mpsearch.worker.duties import WholeJob
from mpsearch.worker.outcome import failed, load_outcome
from mpsearch.workflow.division import Sharding

# What `run` returns of a job that has not ended: its shards come first.
DIVIDED: Final = "divided"
_SECONDS_BETWEEN_LOOKS: Final = 0.2
_SECONDS_BETWEEN_LOOKS_AT_OTHERS: Final = 1.0


def undivided() -> None:
    """Allow no shards."""


@final
@dataclass(frozen=True, kw_only=True)
class Supervisor:
    """Brings jobs to their end, one at a time, so that nothing disturbs what is timed.

    `sharding` says which shards there may be now; None that there are none.
    """

    data: DataFolder
    store: JobStore
    roots: Mapping[str, Path]
    longest_seconds: float = 86_400.0
    sharding: Callable[[], Sharding | None] = undivided

    def run(self, job_id: str, *, may_divide: bool = False) -> str:
        """Run a job until it has ended; return its last state. Can be repeated at any time.

        A job that another worker takes over meanwhile is left to it. One that may be divided
        and shall be has not ended, and is `DIVIDED`.
        """
        self.store.claim(job_id)
        died = ""
        while not (job := self.store.get(job_id)).is_done:
            duty = self._duty(job_id, may_divide=may_divide)
            outcome = load_outcome(duty.folder)
            if job.owner != self.store.owner:
                time.sleep(_SECONDS_BETWEEN_LOOKS_AT_OTHERS)
            elif outcome is not None:
                duty.finish(outcome)
            elif job.state is JobState.CANCELLING:
                self.store.finish(job_id, state=JobState.CANCELLED)
            elif is_running(duty.folder):
                # Of a worker that froze: its files must stay under it, and its end is as good.
                time.sleep(_SECONDS_BETWEEN_LOOKS_AT_OTHERS)
            elif may_divide and self._is_divided(duty):
                return DIVIDED
            elif self.store.start(job_id):
                died = self._attempts.make(duty, job=job, died=died)
        shutil.rmtree(self.data.inputs(job_id), ignore_errors=True)
        return job.state

    def wait(self, job_id: str) -> str:
        """Wait until the shards of a job have ended; return its state, `running` if it goes on.

        A job one of whose shards failed ends with its error.
        """
        self.store.claim(job_id)
        while not (job := self.store.get(job_id)).is_done:
            found = self.shards.of(job_id)
            errors = [shard.error for shard in found if shard.error is not None]
            if job.owner != self.store.owner:
                time.sleep(_SECONDS_BETWEEN_LOOKS_AT_OTHERS)
            elif job.state is JobState.CANCELLING:
                self.store.finish(job_id, state=JobState.CANCELLED)
            elif errors:
                self.store.finish(job_id, state=JobState.FAILED, error=errors[0])
            elif all(shard.is_done for shard in found):
                self.store.count_afresh(job_id)
                break
            else:
                time.sleep(_SECONDS_BETWEEN_LOOKS)
        return job.state

    @property
    def shards(self) -> ShardStore:
        """Return the shards of all jobs."""
        return ShardStore(engine=self.store.engine)

    @property
    def _attempts(self) -> Attempts:
        return Attempts(data=self.data, roots=self.roots, longest_seconds=self.longest_seconds)

    def _duty(self, job_id: str, *, may_divide: bool) -> WholeJob:
        return WholeJob(
            data=self.data,
            store=self.store,
            job_id=job_id,
            sharding=self.sharding() if may_divide else None,
        )

    def _is_divided(self, duty: WholeJob) -> bool:
        """Keep the shards that a runner asked for, if one did."""
        try:
            shards = load_shards(duty.folder)
        except ValueError as error:
            duty.finish(failed(error))
            return False
        if shards is not None:
            self.shards.add(duty.job_id, shards)
        return shards is not None
