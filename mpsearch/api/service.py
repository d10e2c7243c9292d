"""What the routes work with: the store, the uploads and the queue, opened once."""

from dataclasses import dataclass
from typing import Annotated, Final, TypeAlias, final

from fastapi import Depends, Request

from mpsearch.api.settings import Settings
from mpsearch.api.stored_tables import StoredTables
from mpsearch.jobs.blobs import BlobStore, blob_store
from mpsearch.jobs.events import EventLog
from mpsearch.jobs.fleet import Fleet
from mpsearch.jobs.job_queue import JobQueue
from mpsearch.jobs.keys import KeyStore, pepper_of
from mpsearch.jobs.migrate import migrate
from mpsearch.jobs.poster import Poster
from mpsearch.jobs.queue import migrate_queue
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
    queue: JobQueue
    poster: Poster

    def reconcile(self) -> None:
        """Enqueue what a killed server has stored and not enqueued, drop half uploads.

        Jobs and queue are two databases, so no transaction spans both.
        """
        self.queue.put(self.store.unfinished())
        self.blobs.sweep()

    def close(self) -> None:
        """Let go of the databases."""
        self.queue.close()
        self.store.engine.dispose()


def open_service(settings: Settings) -> Service:
    """Make or open the data folder."""
    data = settings.data
    data.path.mkdir(parents=True, exist_ok=True)
    engine = open_database(data.database_url)
    migrate(engine)
    migrate_queue(data.workflows_url)
    queue = JobQueue(data.workflows_url)
    return Service(
        settings=settings,
        store=JobStore(engine=engine),
        events=EventLog(engine=engine),
        fleet=Fleet(engine=engine),
        keys=KeyStore(engine=engine, pepper=pepper_of(data.path)),
        blobs=blob_store(data, patience_seconds=_PATIENCE_SECONDS),
        tables=StoredTables(),
        queue=queue,
        poster=Poster(engine=engine, queue=queue),
    )


# No waiting in it: as a plain function it would be sent to another thread and back.
async def _service(request: Request) -> Service:
    service = request.app.state.service
    assert isinstance(service, Service)
    return service


TheService: TypeAlias = Annotated[Service, Depends(_service)]
