"""Jobs and their events: every change is one transaction that checks the state it starts from."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, final

from sqlalchemy import Connection, Engine, func, insert, select, update
from uuid_utils.compat import uuid7

from mpsearch.core.progress import ProgressEvent
from mpsearch.errors import AbsentError, ConflictError
from mpsearch.jobs.tables import DEVICES, JOB_EVENTS, JOBS


class JobState(StrEnum):
    """Where a job is."""

    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


_DONE = (JobState.CANCELLED, JobState.SUCCEEDED, JobState.FAILED)
_UNFINISHED = (JobState.QUEUED, JobState.RUNNING, JobState.CANCELLING)


@final
@dataclass(frozen=True, kw_only=True)
class Job:
    """One job as it stands; times are seconds since 1970, `progress` is the latest event."""

    id: str
    state: JobState
    request: Mapping[str, Any]
    created: float
    started: float | None = None
    finished: float | None = None
    error: Mapping[str, Any] | None = None
    progress: Mapping[str, Any] | None = None

    @property
    def is_done(self) -> bool:
        """Return whether it has ended, well or not."""
        return self.state in _DONE


@final
@dataclass(frozen=True, kw_only=True)
class JobStore:
    """Jobs in a database."""

    engine: Engine

    def add(self, request: Mapping[str, Any]) -> Job:
        """Keep a new job in state `queued`."""
        job_id, now = str(uuid7()), time.time()
        with self.engine.begin() as connection:
            connection.execute(
                insert(JOBS).values(id=job_id, state=JobState.QUEUED, request=request, created=now)
            )
            _note(connection, job_id, kind="state", data={"state": JobState.QUEUED})
        return Job(id=job_id, state=JobState.QUEUED, request=request, created=now)

    def get(self, job_id: str) -> Job:
        """Return a job.

        Raises:
            AbsentError: There is none of this id.
        """
        with self.engine.connect() as connection:
            found = connection.execute(select(JOBS).where(JOBS.c.id == job_id))
            row = found.mappings().one_or_none()
            if row is None:
                raise AbsentError(
                    f"Job {job_id!r} is not known. Expected the id of a job that was posted here. "
                    "Check the id."
                )
            latest = connection.execute(
                select(JOB_EVENTS.c.data)
                .where(JOB_EVENTS.c.job_id == job_id, JOB_EVENTS.c.kind == "progress")
                .order_by(JOB_EVENTS.c.id.desc())
                .limit(1)
            ).scalar()
        return _job({str(name): value for name, value in row.items()}, progress=latest)

    def unfinished(self) -> tuple[str, ...]:
        """Return the ids of all jobs that have not ended, oldest first."""
        with self.engine.connect() as connection:
            rows = connection.execute(
                select(JOBS.c.id).where(JOBS.c.state.in_(_UNFINISHED)).order_by(JOBS.c.id)
            )
            return tuple(rows.scalars())

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
        """End a job; False where it has ended before."""
        return self._changed(
            job_id, to=state, allowed=_UNFINISHED, finished=time.time(), error=error
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

    def is_cancelling(self, job_id: str) -> bool:
        """Return whether a running job was asked to end."""
        with self.engine.connect() as connection:
            query = select(JOBS.c.state).where(JOBS.c.id == job_id)
            return connection.execute(query).scalar() == JobState.CANCELLING

    def report(self, job_id: str, event: ProgressEvent, *, step: int) -> None:
        """Keep a step of a job's work; `step` counts the steps of its runner."""
        with self.engine.begin() as connection:
            _note(connection, job_id, kind="progress", data=dict(vars(event)))
            connection.execute(
                update(JOBS)
                .where(JOBS.c.id == job_id, JOBS.c.furthest < step)
                .values(furthest=step, deaths=0)
            )

    def count_start(self, job_id: str) -> int:
        """Count one more runner of a job; return how many began since it last got further."""
        with self.engine.begin() as connection:
            connection.execute(
                update(JOBS).where(JOBS.c.id == job_id).values(deaths=JOBS.c.deaths + 1)
            )
            return int(
                connection.execute(select(JOBS.c.deaths).where(JOBS.c.id == job_id)).scalar_one()
            )

    def keep_device(self, name: str, data: Mapping[str, Any]) -> None:
        """Keep what a worker says about one of its runtimes."""
        with self.engine.begin() as connection:
            known = {"seen": time.time(), "data": dict(data)}
            changed = connection.execute(
                update(DEVICES).where(DEVICES.c.name == name).values(known)
            )
            if changed.rowcount == 0:
                connection.execute(insert(DEVICES).values(name=name, **known))

    def devices(self) -> tuple[dict[str, Any], ...]:
        """Return what workers said about their runtimes."""
        with self.engine.connect() as connection:
            rows = connection.execute(select(DEVICES).order_by(DEVICES.c.name))
            return tuple({**row.data, "seen": row.seen} for row in rows)

    def _changed(
        self, job_id: str, *, to: JobState, allowed: tuple[JobState, ...], **values: object
    ) -> bool:
        """Put a job into a state if it is in one of `allowed`, and note that it was."""
        with self.engine.begin() as connection:
            done = connection.execute(
                update(JOBS)
                .where(JOBS.c.id == job_id, JOBS.c.state.in_(allowed))
                .values(state=to, **values)
            )
            if done.rowcount:
                _note(connection, job_id, kind="state", data={"state": to})
            return bool(done.rowcount)


def _note(connection: Connection, job_id: str, *, kind: str, data: Mapping[str, Any]) -> None:
    connection.execute(
        insert(JOB_EVENTS).values(job_id=job_id, created=time.time(), kind=kind, data=dict(data))
    )


def _job(row: Mapping[str, Any], *, progress: Mapping[str, Any] | None) -> Job:
    return Job(
        id=row["id"],
        state=JobState(row["state"]),
        request=row["request"],
        created=row["created"],
        started=row["started"],
        finished=row["finished"],
        error=row["error"],
        progress=progress,
    )
