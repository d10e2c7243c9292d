"""What the routes work with: the store, the uploads and the queue, opened once."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from threading import Lock
from typing import Annotated, Final, TypeAlias, final

from dbos import DBOSClient
from fastapi import Depends, Request

from mpsearch.api.settings import Settings
from mpsearch.api.stored_tables import StoredTables
from mpsearch.jobs.blobs import BlobStore, blob_store
from mpsearch.jobs.events import EventLog
from mpsearch.jobs.fleet import Fleet
from mpsearch.jobs.keys import KeyStore, pepper_of
from mpsearch.jobs.migrate import migrate
from mpsearch.jobs.queue import (
    APPLICATION,
    SERIALIZER,
    WORKFLOW,
    WORKFLOW_SCHEMA,
    migrate_queue,
)
from mpsearch.jobs.store import JobStore
from mpsearch.jobs.tables import open_database

# How long a caller waits for a bucket that does not answer.
_PATIENCE_SECONDS: Final = 10.0


@final
@dataclass(frozen=True, kw_only=True)
class Service:
    """One server's hands."""

    settings: Settings
    store: JobStore
    events: EventLog
    fleet: Fleet
    keys: KeyStore
    blobs: BlobStore
    tables: StoredTables
    queue: DBOSClient
    # Whoever finds SQLite taken sleeps longer and longer, unfairly; threads of one process can
    # wait for their turn instead.
    job_turn: AbstractContextManager[object] = field(default_factory=Lock)
    queue_turn: AbstractContextManager[object] = field(default_factory=Lock)

    def enqueue(self, job_id: str, *, queue: str) -> None:
        """Put a job on a queue; once is enough, more often does no harm."""
        with self.queue_turn:
            self.queue.enqueue(
                {
                    "workflow_name": WORKFLOW,
                    "queue_name": queue,
                    "workflow_id": job_id,
                    "app_version": WORKFLOW_SCHEMA,
                },
                job_id,
            )

    def reconcile(self) -> None:
        """Enqueue what a killed server has stored and not enqueued, drop half uploads.

        Jobs and queue are two databases, so no transaction spans both.
        """
        for job_id, queue in self.store.unfinished():
            self.enqueue(job_id, queue=queue)
        self.blobs.sweep()

    def close(self) -> None:
        """Let go of the databases."""
        self.queue.destroy()
        self.store.engine.dispose()


def open_service(settings: Settings) -> Service:
    """Make or open the data folder."""
    data = settings.data
    data.path.mkdir(parents=True, exist_ok=True)
    engine = open_database(data.database_url)
    migrate(engine)
    migrate_queue(data.workflows_url)
    turn = Lock if engine.dialect.name == "sqlite" else nullcontext
    return Service(
        job_turn=turn(),
        queue_turn=turn(),
        settings=settings,
        store=JobStore(engine=engine),
        events=EventLog(engine=engine),
        fleet=Fleet(engine=engine),
        keys=KeyStore(engine=engine, pepper=pepper_of(data.path)),
        blobs=blob_store(data, patience_seconds=_PATIENCE_SECONDS),
        tables=StoredTables(),
        queue=DBOSClient(
            system_database_url=data.workflows_url,
            serializer=SERIALIZER,
            application_name=APPLICATION,
        ),
    )


def _service(request: Request) -> Service:
    service = request.app.state.service
    assert isinstance(service, Service)
    return service


TheService: TypeAlias = Annotated[Service, Depends(_service)]
