"""What happened to jobs: each event has the number that it brought its job to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

from sqlalchemy import Engine, select

from mpsearch.jobs.tables import JOB_EVENTS, JOBS

# Databases limit how many values one query may name.
_AT_ONCE: Final = 500


@final
@dataclass(frozen=True, kw_only=True)
class JobEvent:
    """A change of state, or a step; `version` orders the events of one job without a gap."""

    version: int
    created: float
    kind: str
    data: Mapping[str, Any]


@final
@dataclass(frozen=True, kw_only=True)
class EventLog:
    """Events in a database, which only grow as long as their job is there."""

    engine: Engine

    def after(self, job_id: str, *, version: int) -> tuple[JobEvent, ...]:
        """Return what happened to a job since it was of a version."""
        query = (
            select(JOB_EVENTS)
            .where(JOB_EVENTS.c.job_id == job_id, JOB_EVENTS.c.version > version)
            .order_by(JOB_EVENTS.c.version)
        )
        with self.engine.connect() as connection:
            return tuple(
                JobEvent(version=row.version, created=row.created, kind=row.kind, data=row.data)
                for row in connection.execute(query)
            )

    def versions(self, job_ids: Sequence[str]) -> dict[str, int]:
        """Return the present version of each of these jobs that is still there."""
        found: dict[str, int] = {}
        with self.engine.connect() as connection:
            for start in range(0, len(job_ids), _AT_ONCE):
                some = job_ids[start : start + _AT_ONCE]
                query = select(JOBS.c.id, JOBS.c.version).where(JOBS.c.id.in_(some))
                found.update({row.id: row.version for row in connection.execute(query)})
        return found
