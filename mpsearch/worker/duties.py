"""The two things that runners work on: a job, and a shard of one."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, final

from mpsearch.core.progress import ProgressEvent
from mpsearch.jobs.data_folder import DataFolder
from mpsearch.jobs.job import JobState
from mpsearch.jobs.shards import ShardStore
from mpsearch.jobs.store import JobStore
from mpsearch.worker.assignment import Assignment
from mpsearch.worker.attempts import AbstractDuty
from mpsearch.worker.inputs import Inputs
from mpsearch.worker.outcome import Outcome
from mpsearch.workflow.division import Sharding

# The one phase of a shard that its job tells of: others have nothing to do with how far it is.
MEASURING: Final = "measure sensitivity"


@final
@dataclass(frozen=True, kw_only=True)
class WholeJob(AbstractDuty):
    """A job: its owner works on it as long as nobody has cancelled or taken it."""

    data: DataFolder
    store: JobStore
    job_id: str
    sharding: Sharding | None

    @property
    def name(self) -> str:
        """Return what it is."""
        return "the job"

    @property
    def folder(self) -> Path:
        """Return the folder of the job."""
        return self.data.job(self.job_id)

    @property
    def inputs(self) -> Path:
        """Return the folder of its uploads."""
        return self.data.inputs(self.job_id)

    def assignment(self, request: Mapping[str, Any], *, inputs: Inputs, cache: Path) -> Assignment:
        """Return the whole request."""
        return Assignment(request=request, inputs=inputs, cache=cache, sharding=self.sharding)

    def goes_on(self) -> bool:
        """Return whether it runs and is ours."""
        return self.store.goes_on(self.job_id)

    def report(self, event: ProgressEvent, *, step: int) -> None:
        """Keep a step as the job's."""
        self.store.report(self.job_id, event, step=step)

    def count_start(self) -> int:
        """Count one more runner of the job."""
        return self.store.count_start(self.job_id)

    def finish(self, outcome: Outcome) -> None:
        """End the job."""
        if outcome.error is None:
            self.store.finish(self.job_id, state=JobState.SUCCEEDED)
        else:
            error = outcome.error.model_dump(exclude_none=True)
            self.store.finish(self.job_id, state=JobState.FAILED, error=error)


@final
@dataclass(frozen=True, kw_only=True)
class OneShard(AbstractDuty):
    """A shard: whoever has it works on it as long as its job runs, whoever owns that."""

    data: DataFolder
    store: JobStore
    shards: ShardStore
    job_id: str
    number: int
    layers: tuple[str, ...]

    @property
    def name(self) -> str:
        """Return which one it is."""
        return f"the shard from layer {self.layers[0]!r} to {self.layers[-1]!r}"

    @property
    def folder(self) -> Path:
        """Return the folder of the shard, within that of its job."""
        return self.data.job(self.job_id) / "shards" / str(self.number)

    @property
    def inputs(self) -> Path:
        """Return a folder of its own, for others may start and end while it is used."""
        return self.data.inputs(f"{self.job_id}-{self.number}")

    def assignment(self, request: Mapping[str, Any], *, inputs: Inputs, cache: Path) -> Assignment:
        """Return the request, and which layers are meant."""
        return Assignment(request=request, inputs=inputs, cache=cache, layers=self.layers)

    def goes_on(self) -> bool:
        """Return whether the job runs."""
        return replace(self.store, owner=None).goes_on(self.job_id)

    def report(self, event: ProgressEvent, *, step: int) -> None:
        """Keep a step as the shard's, and tell the job how much is measured."""
        self.shards.step(self.job_id, number=self.number, step=step)
        if event.phase == MEASURING:
            self.shards.report(self.job_id, event, number=self.number)

    def count_start(self) -> int:
        """Count one more runner of the shard."""
        return self.shards.count_start(self.job_id, number=self.number)

    def finish(self, outcome: Outcome) -> None:
        """End the shard."""
        error = None if outcome.error is None else outcome.error.model_dump(exclude_none=True)
        self.shards.finish(self.job_id, number=self.number, error=error)
