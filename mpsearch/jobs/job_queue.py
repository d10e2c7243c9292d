"""The queue of jobs: what is put on it, DBOS's workers take off."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from threading import Lock
from typing import Any, Final, final

from dbos import DBOSClient, EnqueueOptions
from sqlalchemy import Engine, event, make_url
from sqlalchemy.exc import DBAPIError

from mpsearch.jobs.queue import APPLICATION, SERIALIZER, WORKFLOW, WORKFLOW_SCHEMA
from mpsearch.jobs.tables import open_database

# Nobody else can write meanwhile.
_AT_ONCE: Final = 50


@final
class JobQueue:
    """Puts jobs on the queues of a system database of DBOS."""

    def __init__(self, url: str) -> None:
        self._own = _own_engine(url)
        self.client = DBOSClient(
            system_database_url=url,
            system_database_engine=self._own,
            serializer=SERIALIZER,
            application_name=APPLICATION,
        )
        # Whoever finds SQLite taken sleeps longer and longer, unfairly; threads of one process
        # can wait for their turn instead.
        self._turn: AbstractContextManager[object] = nullcontext() if self._own is None else Lock()

    def put(self, jobs: Sequence[tuple[str, str]]) -> None:
        """Put jobs, each by its id and its queue; once is enough, more often does no harm."""
        for start in range(0, len(jobs), _AT_ONCE):
            with self._turn:
                self._put(jobs[start : start + _AT_ONCE])

    def close(self) -> None:
        """Let go of the database."""
        self.client.destroy()
        if self._own is not None:
            self._own.dispose()

    def _put(self, jobs: Sequence[tuple[str, str]]) -> None:
        if self._own is not None and len(jobs) > 1:
            try:
                with self._own.begin() as connection:
                    for job_id, queue in jobs:
                        self.client.enqueue_in_transaction(
                            connection, _options(job_id, queue=queue), job_id
                        )
            except DBAPIError:
                # One by one below, where DBOS waits and tries again.
                pass
            else:
                return
        for job_id, queue in jobs:
            self.client.enqueue(_options(job_id, queue=queue), job_id)


def _options(job_id: str, *, queue: str) -> EnqueueOptions:
    return {
        "workflow_name": WORKFLOW,
        "queue_name": queue,
        "workflow_id": job_id,
        "app_version": WORKFLOW_SCHEMA,
    }


def _own_engine(url: str) -> Engine | None:
    """Return an engine of ours for SQLite, on which one transaction puts several jobs.

    Between hosts each job is put by itself: Postgres commits those that come at once together.
    """
    if make_url(url).get_backend_name() != "sqlite":
        return None
    engine = open_database(url)
    event.listen(engine, "connect", _takes_its_turn_at_once)
    return engine


def _takes_its_turn_at_once(connection: Any, record: Any) -> None:  # noqa: ANN401, ARG001 - SQLAlchemy passes its own
    # As DBOS sets it: who finds out late that it must wait could have read too early.
    connection.isolation_level = "IMMEDIATE"
