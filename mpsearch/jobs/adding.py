"""New jobs: as many as are asked for at once become true in one transaction."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, final

from sqlalchemy import Connection, Engine, func, insert, select
from uuid_utils.compat import uuid7

from mpsearch.errors import QuotaError, UsageError
from mpsearch.jobs.database import Actor, audit_row, job_of, note_row, one_at_a_time
from mpsearch.jobs.job import UNFINISHED, Job, JobState, Once
from mpsearch.jobs.queue import QUEUE
from mpsearch.jobs.tables import AUDIT, IDEMPOTENCY, JOB_EVENTS, JOBS


@final
@dataclass(frozen=True, kw_only=True)
class NewJob:
    """A job that somebody asks for.

    `most_active` is how many unfinished jobs the tenant may then have; `once` names the request.
    """

    actor: Actor
    request: Mapping[str, Any]
    queue: str = QUEUE
    most_active: int | None = None
    once: Once | None = None


Added: TypeAlias = Job | QuotaError | UsageError


def add_all(engine: Engine, wanted: Sequence[NewJob]) -> tuple[Added, ...]:
    """Keep jobs in state `queued`: all that may be kept, or none where the database fails.

    For each the job, or the one that its `once` made before; a `QuotaError` where as many jobs
    of the tenant as it may have have not ended; a `UsageError` where `once` came with another
    request before.
    """
    with engine.begin() as connection:
        one_at_a_time(connection, [new.actor.tenant for new in wanted])
        judged = _Judged(connection)
        added = tuple(judged.added(new) for new in wanted)
        _write(connection, judged.let_in)
    return added


@final
class _Judged:
    """Who is let in, one after the other, as if those before were written already."""

    def __init__(self, connection: Connection) -> None:
        self.let_in: list[tuple[NewJob, Job]] = []
        self._connection = connection
        self._active: dict[str, int] = {}
        self._by_name: dict[tuple[str, str], tuple[str, Job]] = {}

    def added(self, new: NewJob) -> Added:
        """Return what becomes of a wish."""
        tenant = new.actor.tenant
        if new.once is not None and (before := self._named(tenant, new.once)) is not None:
            return before
        active = 0 if new.most_active is None else self._active_of(tenant)
        if new.most_active is not None and active >= new.most_active:
            return QuotaError(
                f"{new.most_active} jobs wait or run. Expected fewer before another is posted. "
                "Wait until one has ended, or cancel one."
            )
        job = Job(
            id=str(uuid7()),
            tenant=tenant,
            state=JobState.QUEUED,
            queue=new.queue,
            request=new.request,
            created=time.time(),
            version=1,
        )
        self.let_in.append((new, job))
        if new.once is not None:
            self._by_name[tenant, new.once.key] = (new.once.digest, job)
        return job

    def _named(self, tenant: str, once: Once) -> Job | UsageError | None:
        digest, job = self._by_name.get((tenant, once.key)) or self._stored(tenant, once.key)
        if job is None or digest == once.digest:
            return job
        return UsageError(
            f"Idempotency-Key {once.key!r} came with another request before. Expected a new "
            "key for a new request. Choose another key."
        )

    def _stored(self, tenant: str, key: str) -> tuple[str, Job | None]:
        query = (
            select(IDEMPOTENCY.c.digest, JOBS)
            .join(JOBS, JOBS.c.id == IDEMPOTENCY.c.job_id)
            .where(IDEMPOTENCY.c.tenant == tenant, IDEMPOTENCY.c.key == key)
        )
        row = self._connection.execute(query).one_or_none()
        return ("", None) if row is None else (row.digest, job_of(row))

    def _active_of(self, tenant: str) -> int:
        if tenant not in self._active:
            query = select(func.count()).where(
                JOBS.c.tenant == tenant, JOBS.c.state.in_(UNFINISHED)
            )
            self._active[tenant] = int(self._connection.execute(query).scalar_one())
        return self._active[tenant] + sum(job.tenant == tenant for _, job in self.let_in)


def _write(connection: Connection, let_in: Sequence[tuple[NewJob, Job]]) -> None:
    if not let_in:
        return
    jobs = [
        {name: value for name, value in vars(job).items() if value is not None} for _, job in let_in
    ]
    connection.execute(insert(JOBS), jobs)
    events = [
        note_row(job.id, version=job.version, kind="state", data={"state": job.state})
        for _, job in let_in
    ]
    connection.execute(insert(JOB_EVENTS), events)
    names = [
        {**vars(new.once), "tenant": job.tenant, "job_id": job.id, "created": job.created}
        for new, job in let_in
        if new.once is not None
    ]
    if names:
        connection.execute(insert(IDEMPOTENCY), names)
    audited = [audit_row(new.actor, action="post", target=f"jobs/{job.id}") for new, job in let_in]
    connection.execute(insert(AUDIT), audited)
