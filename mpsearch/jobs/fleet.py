"""The workers, and the devices that they measure on, as they reported them."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from sqlalchemy import Engine, delete, insert, select, update

from mpsearch.jobs.tables import DEVICES, WORKERS


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

    def beat(self, name: str, *, queue: str) -> None:
        """Note that a worker is alive."""
        with self.engine.begin() as connection:
            changed = connection.execute(
                update(WORKERS).where(WORKERS.c.name == name).values(seen=time.time())
            )
            if changed.rowcount == 0:
                connection.execute(insert(WORKERS).values(name=name, queue=queue, seen=time.time()))

    def workers(self) -> tuple[Worker, ...]:
        """Return every worker that has not been found dead."""
        with self.engine.connect() as connection:
            rows = connection.execute(select(WORKERS).order_by(WORKERS.c.name))
            return tuple(Worker(name=row.name, queue=row.queue, seen=row.seen) for row in rows)

    def forget(self, name: str) -> None:
        """Strike a worker off the list: it was found dead."""
        with self.engine.begin() as connection:
            connection.execute(delete(WORKERS).where(WORKERS.c.name == name))
