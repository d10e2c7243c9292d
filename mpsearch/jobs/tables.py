"""The tables that jobs and their events are kept in."""

from collections.abc import Callable
from typing import Any, Final

from sqlalchemy import (
    JSON,
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
    inspect,
    select,
)

from mpsearch.errors import ConflictError

SCHEMA_VERSION: Final = 1
_SECONDS_TO_WAIT_FOR_A_LOCK: Final = 30

METADATA = MetaData()
SCHEMA = Table("schema_version", METADATA, Column("version", Integer, primary_key=True))
JOBS = Table(
    "jobs",
    METADATA,
    Column("id", String(36), primary_key=True),  # a UUIDv7: ordered by time
    Column("state", String(20), nullable=False, index=True),
    Column("request", JSON, nullable=False),
    Column("created", Float, nullable=False),  # seconds since 1970, as all times here
    Column("started", Float),
    Column("finished", Float),
    Column("error", JSON),
    # Runners that died since the last step that no runner of this job had reached before.
    Column("deaths", Integer, nullable=False, default=0),
    Column("furthest", Integer, nullable=False, default=0),
)
JOB_EVENTS = Table(
    "job_events",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("job_id", String(36), ForeignKey("jobs.id"), nullable=False),
    Column("created", Float, nullable=False),
    Column("kind", String(20), nullable=False),  # "state" or "progress"
    Column("data", JSON, nullable=False),
    Index("job_events_of_a_job", "job_id", "id"),
)
DEVICES = Table(
    "devices",
    METADATA,
    Column("name", String(40), primary_key=True),  # of the runtime
    Column("seen", Float, nullable=False),
    Column("data", JSON, nullable=False),
)


def open_database(url: str) -> Engine:
    """Return an engine; on SQLite, readers never wait and commits survive a loss of power."""
    engine = create_engine(url)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _configured)
    return engine


def migrate(engine: Engine) -> None:
    """Create the tables, or check that they are of this version.

    Raises:
        ConflictError: They are of another version.
    """
    if not inspect(engine).has_table(SCHEMA.name):
        METADATA.create_all(engine)
        with engine.begin() as connection:
            connection.execute(SCHEMA.insert().values(version=SCHEMA_VERSION))
        return
    with engine.connect() as connection:
        found = connection.execute(select(SCHEMA.c.version)).scalar()
    if found != SCHEMA_VERSION:
        raise ConflictError(
            f"The data folder is of version {found}. Expected {SCHEMA_VERSION}. Start the version "
            "of mpsearch that made it, or choose another folder with --data."
        )


def _configured(connection: Any, record: Any) -> None:  # noqa: ANN401, ARG001 - SQLAlchemy passes its own
    execute: Callable[[str], Any] = connection.execute
    execute("PRAGMA journal_mode=WAL")
    execute("PRAGMA synchronous=FULL")
    execute("PRAGMA foreign_keys=ON")
    execute(f"PRAGMA busy_timeout={_SECONDS_TO_WAIT_FOR_A_LOCK * 1000}")
