"""From a request to a job that is stored and on its queue."""

from collections.abc import Sequence
from typing import final

from sqlalchemy import Engine

from mpsearch.errors import MpsearchError
from mpsearch.jobs.adding import Added, NewJob, add_all
from mpsearch.jobs.job import Job
from mpsearch.jobs.job_queue import JobQueue
from mpsearch.jobs.together import Together


@final
class Poster:
    """Posts jobs; on SQLite, those that come at once wait for the disk together."""

    def __init__(self, *, engine: Engine, queue: JobQueue) -> None:
        self._engine = engine
        self._queue = queue
        self._together = Together(self._post) if engine.dialect.name == "sqlite" else None

    def post(self, new: NewJob) -> Job:
        """Keep a job and put it on its queue, or return the one that its `once` made before.

        When this returns, both survive whatever becomes of the server.

        Raises:
            QuotaError: As many jobs of the tenant as it may have have not ended.
            UsageError: `once` came with another request before.
        """
        if self._together is not None:
            return self._together(new)
        (added,) = self._post([new])
        if isinstance(added, MpsearchError):
            raise added
        return added

    def _post(self, wanted: Sequence[NewJob]) -> Sequence[Added]:
        added = add_all(self._engine, wanted)
        self._queue.put([(job.id, job.queue) for job in added if isinstance(job, Job)])
        return added
