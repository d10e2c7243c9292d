"""What the routes work with: the store, the uploads and the queue, opened once."""

from dataclasses import dataclass
from typing import Annotated, TypeAlias, final

from dbos import DBOSClient
from fastapi import Depends, Request

from mpsearch.api.settings import Settings
from mpsearch.api.stored_tables import StoredTables
from mpsearch.jobs.blobs import BlobStore
from mpsearch.jobs.queue import (
    APPLICATION,
    QUEUE,
    SERIALIZER,
    WORKFLOW,
    WORKFLOW_SCHEMA,
    migrate_queue,
)
from mpsearch.jobs.sources import Sources
from mpsearch.jobs.store import JobStore
from mpsearch.jobs.tables import migrate, open_database


@final
@dataclass(frozen=True, kw_only=True)
class Service:
    """One server's hands."""

    settings: Settings
    store: JobStore
    blobs: BlobStore
    sources: Sources
    tables: StoredTables
    queue: DBOSClient

    def enqueue(self, job_id: str) -> None:
        """Put a job on the queue; once is enough, more often does no harm."""
        self.queue.enqueue(
            {
                "workflow_name": WORKFLOW,
                "queue_name": QUEUE,
                "workflow_id": job_id,
                "app_version": WORKFLOW_SCHEMA,
            },
            job_id,
        )

    def reconcile(self) -> None:
        """Enqueue what a killed server has stored and not enqueued, drop half uploads.

        Jobs and queue are two databases, so no transaction spans both.
        """
        for job_id in self.store.unfinished():
            self.enqueue(job_id)
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
    blobs = BlobStore(folder=data.blobs)
    return Service(
        settings=settings,
        store=JobStore(engine=engine),
        blobs=blobs,
        sources=Sources(roots=settings.roots, blobs=blobs),
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
