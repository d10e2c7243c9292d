"""Brings shards to their end: layers of a job that is waited for, perhaps by another worker."""

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from mpsearch.jobs.data_folder import DataFolder
from mpsearch.jobs.job import JobState
from mpsearch.jobs.shards import ShardStore
from mpsearch.jobs.store import JobStore
from mpsearch.worker.attempts import Attempts, is_running
from mpsearch.worker.duties import OneShard
from mpsearch.worker.outcome import load_outcome

_SECONDS_BETWEEN_LOOKS_AT_OTHERS: Final = 1.0


@final
@dataclass(frozen=True, kw_only=True)
class ShardSupervisor:
    """Brings shards to their end, of jobs that may be anybody's."""

    data: DataFolder
    store: JobStore
    roots: Mapping[str, Path]
    longest_seconds: float = 86_400.0

    def run(self, job_id: str, *, number: int) -> None:
        """Measure a shard, unless its job has ended or shall end. Can be repeated at any time."""
        shards, died = self.store_of_shards, ""
        duty = OneShard(
            data=self.data,
            store=self.store,
            shards=shards,
            job_id=job_id,
            number=number,
            layers=shards.get(job_id, number=number).layers,
        )
        while not shards.get(job_id, number=number).is_done:
            job = self.store.get(job_id)
            outcome = load_outcome(duty.folder)
            if job.state is not JobState.RUNNING:
                break
            if outcome is not None:
                duty.finish(outcome)
            elif is_running(duty.folder):
                time.sleep(_SECONDS_BETWEEN_LOOKS_AT_OTHERS)
            else:
                died = self._attempts.make(duty, job=job, died=died)
        shutil.rmtree(duty.inputs, ignore_errors=True)

    @property
    def store_of_shards(self) -> ShardStore:
        """Return the shards of all jobs."""
        return ShardStore(engine=self.store.engine)

    @property
    def _attempts(self) -> Attempts:
        return Attempts(data=self.data, roots=self.roots, longest_seconds=self.longest_seconds)
