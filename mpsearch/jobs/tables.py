"""The tables that the service keeps: jobs, their events, keys, uploads and the audit log."""

from collections.abc import Callable
from typing import Any, Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Engine,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    event,
)

_SECONDS_TO_WAIT_FOR_A_LOCK: Final = 30
# A worker that freezes within a transaction would keep its rows from whoever takes over.
_SECONDS_OF_AN_IDLE_TRANSACTION: Final = 60
# Connections of one process: the API answers from a pool of 40 threads.
_CONNECTIONS: Final = 40

METADATA = MetaData()
JOBS = Table(
    "jobs",
    METADATA,
    Column("id", String(36), primary_key=True),  # a UUIDv7: ordered by time
    Column("tenant", String(64), nullable=False, server_default="local"),
    Column("state", String(20), nullable=False, index=True),
    Column("queue", String(64), nullable=False, server_default="dev:cpu"),
    Column("request", JSON, nullable=False),
    Column("created", Float, nullable=False),  # seconds since 1970, as all times here
    Column("started", Float),
    Column("finished", Float),
    Column("error", JSON),
    Column("progress", JSON),  # the latest event of this kind
    # Counts the job's events: each has the number that it brought the job to.
    Column("version", Integer, nullable=False, server_default="0"),
    # The worker that may write; another one takes over by putting its own name here.
    Column("owner", String(64)),
    # Runners that tried the step after the furthest one, the one that reached it first among them.
    Column("deaths", Integer, nullable=False, default=0),
    Column("furthest", Integer, nullable=False, default=0),
    Index("jobs_of_a_tenant", "tenant", "id"),
    Index("jobs_of_a_tenant_by_state", "tenant", "state"),
)
JOB_EVENTS = Table(
    "job_events",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("job_id", String(36), ForeignKey("jobs.id"), nullable=False),
    Column("version", Integer, nullable=False, server_default="0"),
    Column("created", Float, nullable=False),
    Column("kind", String(20), nullable=False),  # "state" or "progress"
    Column("data", JSON, nullable=False),
    Index("job_events_by_version", "job_id", "version", unique=True),
)
# Parts of a job's sensitivity phase, each some layers that one process measures.
JOB_SHARDS = Table(
    "job_shards",
    METADATA,
    Column("job_id", String(36), ForeignKey("jobs.id"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("layers", JSON, nullable=False),
    Column("done", Integer, nullable=False, default=0),  # layers
    Column("started", Float),
    Column("finished", Float),
    Column("error", JSON(none_as_null=True)),
    # As of a job.
    Column("deaths", Integer, nullable=False, default=0),
    Column("furthest", Integer, nullable=False, default=0),
)
DEVICES = Table(
    "devices",
    METADATA,
    Column("name", String(40), primary_key=True),  # of the runtime
    Column("seen", Float, nullable=False),
    Column("data", JSON, nullable=False),
)
WORKERS = Table(
    "workers",
    METADATA,
    Column("name", String(64), primary_key=True),
    Column("queue", String(64), nullable=False),
    Column("seen", Float, nullable=False),
)
KEYS = Table(
    "keys",
    METADATA,
    Column("id", String(16), primary_key=True),
    Column("tenant", String(64), nullable=False),
    Column("note", String(200), nullable=False),
    Column("digest", String(64), nullable=False),  # HMAC-SHA256 of the secret, in hex
    Column("scopes", JSON, nullable=False),
    Column("created", Float, nullable=False),
    Column("expires", Float),
    Column("revoked", Float),
)
BLOBS = Table(
    "blobs",
    METADATA,
    Column("tenant", String(64), primary_key=True),
    Column("name", String(80), primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("created", Float, nullable=False),
)
IDEMPOTENCY = Table(
    "idempotency",
    METADATA,
    Column("tenant", String(64), primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("digest", String(64), nullable=False),  # of the request that came with it
    Column("job_id", String(36), ForeignKey("jobs.id"), nullable=False),
    Column("created", Float, nullable=False),
)
# Triggers of the database refuse to change or delete what stands here.
AUDIT = Table(
    "audit",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("created", Float, nullable=False),
    Column("tenant", String(64), nullable=False),
    Column("actor", String(64), nullable=False),
    Column("action", String(40), nullable=False),
    Column("target", String(200), nullable=False),
    Column("detail", JSON, nullable=False),
)


def open_database(url: str) -> Engine:
    """Return an engine; on SQLite, readers never wait and commits survive a loss of power.

    On Postgres, transactions that nobody goes on with end by themselves.
    """
    engine = create_engine(url, pool_size=_CONNECTIONS, pool_pre_ping=True)
    event.listen(engine, "connect", _SETTINGS[engine.dialect.name])
    return engine


def _set_postgres(connection: Any, record: Any) -> None:  # noqa: ANN401, ARG001 - SQLAlchemy passes its own
    seconds = _SECONDS_OF_AN_IDLE_TRANSACTION
    connection.execute(f"SET idle_in_transaction_session_timeout = '{seconds}s'")
    connection.commit()


def _set_sqlite(connection: Any, record: Any) -> None:  # noqa: ANN401, ARG001 - SQLAlchemy passes its own
    execute: Callable[[str], Any] = connection.execute
    execute("PRAGMA journal_mode=WAL")
    execute("PRAGMA synchronous=FULL")
    execute("PRAGMA foreign_keys=ON")
    execute(f"PRAGMA busy_timeout={_SECONDS_TO_WAIT_FOR_A_LOCK * 1000}")


_SETTINGS: Final = {"sqlite": _set_sqlite, "postgresql": _set_postgres}
