"""Shards: parts of a job's sensitivity phase, which other workers may take on."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from sqlalchemy import Connection, Engine, Row, case, func, insert, select, update

from mpsearch.core.progress import ProgressEvent
from mpsearch.errors import AbsentError
from mpsearch.jobs.database import note
from mpsearch.jobs.job import JobState
from mpsearch.jobs.tables import JOB_SHARDS, JOBS


@final
@dataclass(frozen=True, kw_only=True)
class Shard:
    """Layers of a job that one process measures; `error` says why they could not be."""

    job_id: str
    number: int
    layers: tuple[str, ...]
    finished: float | None = None
    error: Mapping[str, Any] | None = None

    @property
    def is_done(self) -> bool:
        """Return whether it has ended, well or not."""
        return self.finished is not None


@final
@dataclass(frozen=True, kw_only=True)
class ShardStore:
    """Shards in a database. What they do is the same whoever does it, so they have no owner."""

    engine: Engine

    def add(self, job_id: str, shards: Sequence[Sequence[str]]) -> None:
        """Keep the shards of a job, unless it has some: dividing again changes nothing."""
        rows = [
            {"job_id": job_id, "number": number, "layers": list(layers)}
            for number, layers in enumerate(shards)
        ]
        with self.engine.begin() as connection:
            # Its row is held until we are done, so nobody else adds them meanwhile.
            connection.execute(
                update(JOBS).where(JOBS.c.id == job_id).values(version=JOBS.c.version)
            )
            if not _rows(connection, job_id):
                connection.execute(insert(JOB_SHARDS), rows)

    def of(self, job_id: str) -> tuple[Shard, ...]:
        """Return the shards of a job, none where it was not divided."""
        with self.engine.connect() as connection:
            return tuple(_shard(row) for row in _rows(connection, job_id))

    def get(self, job_id: str, *, number: int) -> Shard:
        """Return a shard.

        Raises:
            AbsentError: There is none, or the job was deleted.
        """
        for shard in self.of(job_id):
            if shard.number == number:
                return shard
        raise AbsentError(
            f"Job {job_id!r} has no shard {number}. Expected a job that was divided and is still "
            "there. There is nothing to do."
        )

    def finish(self, job_id: str, *, number: int, error: Mapping[str, Any] | None = None) -> None:
        """End a shard, unless it has ended."""
        with self.engine.begin() as connection:
            connection.execute(
                update(JOB_SHARDS)
                .where(*_is(job_id, number=number), JOB_SHARDS.c.finished.is_(None))
                .values(finished=time.time(), error=error)
            )

    def count_start(self, job_id: str, *, number: int) -> int:
        """Count one more runner of a shard; return how many have tried the step it is at."""
        with self.engine.begin() as connection:
            return int(
                connection.execute(
                    update(JOB_SHARDS)
                    .where(*_is(job_id, number=number))
                    .values(deaths=JOB_SHARDS.c.deaths + 1)
                    .returning(JOB_SHARDS.c.deaths)
                ).scalar_one()
            )

    def step(self, job_id: str, *, number: int, step: int) -> None:
        """Note that a runner got to a step: who gets further than any before it has not died."""
        with self.engine.begin() as connection:
            further = JOB_SHARDS.c.furthest < step
            connection.execute(
                update(JOB_SHARDS)
                .where(*_is(job_id, number=number))
                .values(
                    deaths=case((further, 1), else_=JOB_SHARDS.c.deaths),
                    furthest=case((further, step), else_=JOB_SHARDS.c.furthest),
                )
            )

    def report(self, job_id: str, event: ProgressEvent, *, number: int) -> None:
        """Keep how much of a shard is measured, and tell the job how much of all shards is."""
        with self.engine.begin() as connection:
            # First, so that shards of a job report one after the other.
            version = connection.execute(
                update(JOBS)
                .where(JOBS.c.id == job_id, JOBS.c.state == JobState.RUNNING)
                .values(version=JOBS.c.version + 1)
                .returning(JOBS.c.version)
            ).scalar()
            if version is None:
                return
            layers = len(_shard(connection.execute(_one(job_id, number=number)).one()).layers)
            connection.execute(
                update(JOB_SHARDS)
                .where(*_is(job_id, number=number))
                .values(
                    done=layers * event.done // max(event.total, 1),
                    started=func.coalesce(JOB_SHARDS.c.started, time.time()),
                )
            )
            data = dict(vars(_of_all(connection, job_id, phase=event.phase)))
            connection.execute(update(JOBS).where(JOBS.c.id == job_id).values(progress=data))
            note(connection, job_id, version=version, kind="progress", data=data)


def _is(job_id: str, *, number: int) -> tuple[Any, Any]:
    return JOB_SHARDS.c.job_id == job_id, JOB_SHARDS.c.number == number


def _one(job_id: str, *, number: int) -> Any:  # noqa: ANN401  # a query, whose type is long
    return select(JOB_SHARDS).where(*_is(job_id, number=number))


def _rows(connection: Connection, job_id: str) -> Sequence[Row[Any]]:
    query = select(JOB_SHARDS).where(JOB_SHARDS.c.job_id == job_id)
    return connection.execute(query.order_by(JOB_SHARDS.c.number)).all()


def _shard(row: Row[Any]) -> Shard:
    return Shard(
        job_id=row.job_id,
        number=row.number,
        layers=tuple(row.layers),
        finished=row.finished,
        error=row.error,
    )


def _of_all(connection: Connection, job_id: str, *, phase: str) -> ProgressEvent:
    """Return how many layers are measured in all, at the pace since the first shard began."""
    rows = _rows(connection, job_id)
    done, total = sum(row.done for row in rows), sum(len(row.layers) for row in rows)
    seconds = time.time() - min(row.started for row in rows if row.started is not None)
    left = seconds / done * (total - done) if done else None
    return ProgressEvent(phase=phase, done=done, total=total, seconds=seconds, seconds_left=left)
