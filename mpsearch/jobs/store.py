"""Jobs: every change is one transaction that checks the state it starts from."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, final

from sqlalchemy import (
    ColumnElement,
    Engine,
    and_,
    case,
    delete,
    func,
    select,
    true,
    update,
)

from mpsearch.core.progress import ProgressEvent
from mpsearch.errors import AbsentError, ConflictError, MpsearchError
from mpsearch.jobs.adding import NewJob, add_all
from mpsearch.jobs.database import LOOPBACK, Actor, audit, job_of, note
from mpsearch.jobs.job import UNFINISHED, Job, JobState, Once
from mpsearch.jobs.queue import QUEUE
from mpsearch.jobs.tables import IDEMPOTENCY, JOB_EVENTS, JOB_SHARDS, JOBS


@final
@dataclass(frozen=True, kw_only=True)
class JobStore:
    """Jobs in a database: those of the `actor`'s tenant, of all tenants where there is none.

    `owner` is the worker that writes; what it was taken away from it cannot write any more.
    """

    engine: Engine
    actor: Actor | None = None
    owner: str | None = None

    def of(self, actor: Actor) -> "JobStore":
        """Return the jobs of one tenant: those of others do not exist in it."""
        return replace(self, actor=actor)

    def add(
        self,
        request: Mapping[str, Any],
        *,
        queue: str = QUEUE,
        most_active: int | None = None,
        once: Once | None = None,
    ) -> Job:
        """Keep a new job in state `queued`, or return the one that `once` made before.

        Raises:
            QuotaError: As many jobs of the tenant as it may have have not ended.
            UsageError: `once` came with another request before.
        """
        wish = NewJob(
            actor=self._actor, request=request, queue=queue, most_active=most_active, once=once
        )
        (added,) = add_all(self.engine, [wish])
        if isinstance(added, MpsearchError):
            raise added
        return added

    def get(self, job_id: str) -> Job:
        """Return a job.

        Raises:
            AbsentError: There is none of this id, or it is another tenant's.
        """
        with self.engine.connect() as connection:
            found = connection.execute(select(JOBS).where(JOBS.c.id == job_id, self._mine))
            row = found.one_or_none()
        if row is None:
            raise AbsentError(
                f"Job {job_id!r} is not known. Expected the id of a job that was posted here. "
                "Check the id."
            )
        return job_of(row)

    def page(
        self, *, limit: int, before: str | None = None, state: JobState | None = None
    ) -> tuple[Job, ...]:
        """Return jobs, newest first, from the one after `before` on."""
        query = select(JOBS).where(self._mine).order_by(JOBS.c.id.desc()).limit(limit)
        if before is not None:
            query = query.where(JOBS.c.id < before)
        if state is not None:
            query = query.where(JOBS.c.state == state)
        with self.engine.connect() as connection:
            return tuple(job_of(row) for row in connection.execute(query))

    def unfinished(self) -> tuple[tuple[str, str], ...]:
        """Return (id, queue) of all jobs that have not ended, oldest first."""
        query = select(JOBS.c.id, JOBS.c.queue).where(JOBS.c.state.in_(UNFINISHED), self._mine)
        with self.engine.connect() as connection:
            return tuple((row.id, row.queue) for row in connection.execute(query.order_by("id")))

    def counts(self) -> dict[str, int]:
        """Return how many jobs there are by state."""
        query = select(JOBS.c.state, func.count()).where(self._mine).group_by(JOBS.c.state)
        with self.engine.connect() as connection:
            return {state: int(count) for state, count in connection.execute(query)}

    def claim(self, job_id: str) -> None:
        """Become the owner of a job that has not ended: whoever was it before no longer is."""
        with self.engine.begin() as connection:
            connection.execute(
                update(JOBS)
                .where(JOBS.c.id == job_id, JOBS.c.state.in_(UNFINISHED))
                .values(owner=self.owner)
            )

    def start(self, job_id: str) -> bool:
        """Put a job into state `running`; False where it has ended or shall end."""
        return self._changed(
            job_id,
            to=JobState.RUNNING,
            allowed=(JobState.QUEUED, JobState.RUNNING),
            started=func.coalesce(JOBS.c.started, time.time()),
        )

    def finish(
        self, job_id: str, *, state: JobState, error: Mapping[str, Any] | None = None
    ) -> bool:
        """End a job; False where it has ended before, or has another owner."""
        return self._changed(
            job_id, to=state, allowed=UNFINISHED, finished=time.time(), error=error
        )

    def cancel(self, job_id: str) -> Job:
        """End a job that waits, ask a running one to end; one already cancelled stays so.

        Raises:
            AbsentError: There is none of this id.
            ConflictError: It has ended otherwise.
        """
        waiting = self._changed(
            job_id, to=JobState.CANCELLED, allowed=(JobState.QUEUED,), finished=time.time()
        )
        if not waiting:
            self._changed(job_id, to=JobState.CANCELLING, allowed=(JobState.RUNNING,))
        job = self.get(job_id)
        if job.state in (JobState.SUCCEEDED, JobState.FAILED):
            raise ConflictError(
                f"Job {job_id!r} has {job.state}. Expected one that waits or runs. "
                "There is nothing to cancel."
            )
        return job

    def delete(self, job_id: str) -> None:
        """Forget a job that has ended; its files are the caller's to delete.

        Raises:
            AbsentError: There is none of this id.
            ConflictError: It has not ended.
        """
        job = self.get(job_id)
        if not job.is_done:
            raise ConflictError(
                f"Job {job_id!r} is {job.state}. Expected one that has ended. Cancel it first."
            )
        with self.engine.begin() as connection:
            connection.execute(delete(IDEMPOTENCY).where(IDEMPOTENCY.c.job_id == job_id))
            connection.execute(delete(JOB_EVENTS).where(JOB_EVENTS.c.job_id == job_id))
            connection.execute(delete(JOB_SHARDS).where(JOB_SHARDS.c.job_id == job_id))
            connection.execute(delete(JOBS).where(JOBS.c.id == job_id, self._mine))
            audit(connection, self._actor, action="delete", target=f"jobs/{job_id}")

    def goes_on(self, job_id: str) -> bool:
        """Return whether its owner shall go on with a job: nobody has cancelled or taken it."""
        query = select(JOBS.c.id).where(
            JOBS.c.id == job_id, JOBS.c.state == JobState.RUNNING, self._owned
        )
        with self.engine.connect() as connection:
            return connection.execute(query).first() is not None

    def report(self, job_id: str, event: ProgressEvent, *, step: int) -> None:
        """Keep a step of a job's work; `step` counts the steps of its runner."""
        data = dict(vars(event))
        further = JOBS.c.furthest < step
        with self.engine.begin() as connection:
            changed = connection.execute(
                update(JOBS)
                .where(JOBS.c.id == job_id, self._owned)
                .values(
                    version=JOBS.c.version + 1,
                    progress=data,
                    # The runner that got there has yet to get beyond it.
                    deaths=case((further, 1), else_=JOBS.c.deaths),
                    furthest=case((further, step), else_=JOBS.c.furthest),
                )
                .returning(JOBS.c.version)
            ).scalar()
            if changed is not None:
                note(connection, job_id, version=changed, kind="progress", data=data)

    def count_start(self, job_id: str) -> int:
        """Count one more runner of a job; return how many have tried the step that it is at."""
        with self.engine.begin() as connection:
            return int(
                connection.execute(
                    update(JOBS)
                    .where(JOBS.c.id == job_id)
                    .values(deaths=JOBS.c.deaths + 1)
                    .returning(JOBS.c.deaths)
                ).scalar_one()
            )

    def count_afresh(self, job_id: str) -> None:
        """Begin counting runners and their steps again: what follows is other work."""
        with self.engine.begin() as connection:
            connection.execute(
                update(JOBS).where(JOBS.c.id == job_id, self._owned).values(deaths=0, furthest=0)
            )

    @property
    def _actor(self) -> Actor:
        return LOOPBACK if self.actor is None else self.actor

    @property
    def _mine(self) -> ColumnElement[bool]:
        return true() if self.actor is None else JOBS.c.tenant == self.actor.tenant

    @property
    def _owned(self) -> ColumnElement[bool]:
        return true() if self.owner is None else JOBS.c.owner == self.owner

    def _changed(
        self, job_id: str, *, to: JobState, allowed: tuple[JobState, ...], **values: object
    ) -> bool:
        """Put a job into a state if it is in one of `allowed`, and note that it was."""
        with self.engine.begin() as connection:
            version = connection.execute(
                update(JOBS)
                .where(
                    and_(JOBS.c.id == job_id, JOBS.c.state.in_(allowed), self._mine, self._owned)
                )
                .values(state=to, version=JOBS.c.version + 1, **values)
                .returning(JOBS.c.version)
            ).scalar()
            if version is not None:
                note(connection, job_id, version=version, kind="state", data={"state": to})
                if self.actor is not None:
                    audit(connection, self.actor, action=to, target=f"jobs/{job_id}")
            return version is not None
