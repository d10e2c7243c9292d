"""The workers, and the devices that they measure on, as they reported them."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, final

from sqlalchemy import Connection, Engine, Table, delete, select
from sqlalchemy.dialects import postgresql, sqlite

from mpsearch.jobs.tables import DEVICES, WORKERS

# Only those of a kind of database know what to do where the row is there.
_INSERTS: Final[Mapping[str, Callable[[Table], Any]]] = {
    "postgresql": postgresql.insert,
    "sqlite": sqlite.insert,
}


@final
@dataclass(frozen=True, kw_only=True)
class Worker:
    """A worker, the queue that it takes jobs off, and when it was last alive."""

    name: str
    queue: str
    seen: float


@final
@dataclass(frozen=True, kw_only=True)
class Fleet:
    """Workers and devices in a database."""

    engine: Engine

    def keep_device(self, name: str, data: Mapping[str, Any]) -> None:
        """Keep what a worker says about one of its runtimes."""
        with self.engine.begin() as connection:
            _keep(connection, DEVICES, name=name, data=dict(data))

    def devices(self) -> tuple[dict[str, Any], ...]:
        """Return what workers said about their runtimes."""
        with self.engine.connect() as connection:
            rows = connection.execute(select(DEVICES).order_by(DEVICES.c.name))
            return tuple({**row.data, "seen": row.seen} for row in rows)

    def beat(self, name: str, *, queue: str) -> None:
        """Note that a worker is alive."""
        with self.engine.begin() as connection:
            _keep(connection, WORKERS, name=name, queue=queue)

    def workers(self) -> tuple[Worker, ...]:
        """Return every worker that has not been found dead."""
        with self.engine.connect() as connection:
            rows = connection.execute(select(WORKERS).order_by(WORKERS.c.name))
            return tuple(Worker(name=row.name, queue=row.queue, seen=row.seen) for row in rows)

    def forget(self, name: str) -> None:
        """Strike a worker off the list: it was found dead."""
        with self.engine.begin() as connection:
            connection.execute(delete(WORKERS).where(WORKERS.c.name == name))


def _keep(connection: Connection, table: Table, **row: Any) -> None:  # noqa: ANN401  # by column
    """Write a row of a name, new or not, as seen now.

    One statement: workers that start together write the same devices at the same time.
    """
    values = {**row, "seen": time.time()}
    written = _INSERTS[connection.dialect.name](table).values(values)
    connection.execute(written.on_conflict_do_update(index_elements=["name"], set_=values))
