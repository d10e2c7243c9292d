"""Uploads as one tenant sees them: those that it has sent itself, within its quota."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, final, runtime_checkable

from sqlalchemy import Connection, Engine, func, insert, select
from sqlalchemy.exc import IntegrityError

from mpsearch.errors import AbsentError, QuotaError
from mpsearch.jobs.blobs import BlobStore, BlobWriter
from mpsearch.jobs.database import Actor, audit, one_at_a_time
from mpsearch.jobs.tables import BLOBS


@runtime_checkable
class Uploads(Protocol):
    """Where the file of an upload is found."""

    def path(self, name: str) -> Path:
        """Return the file of an upload, or raise AbsentError."""


@final
@dataclass(frozen=True, kw_only=True)
class OwnUploads:
    """The uploads of a tenant. Equal files of several tenants are stored once, and told to none."""

    engine: Engine
    store: BlobStore
    actor: Actor
    most_bytes: int

    def size(self, name: str) -> int | None:
        """Return the size of an upload, None where it is not here."""
        query = select(BLOBS.c.size).where(
            BLOBS.c.tenant == self.actor.tenant, BLOBS.c.name == name
        )
        with self.engine.connect() as connection:
            found = connection.execute(query).scalar()
        return found if found is not None and self.store.holds(name) else None

    def path(self, name: str) -> Path:
        """Return the file of an upload.

        Raises:
            AbsentError: It is not here, or was sent by others only.
        """
        if self.size(name) is None:
            raise AbsentError(
                f"Blob {name!r} is not here. Expected one that was uploaded. "
                f"Upload it with PUT /v1/blobs/{name}."
            )
        return self.store.path(name)

    @contextmanager
    def receiving(self, name: str) -> Iterator[BlobWriter]:
        """Take in an upload; on leaving the block it is checked and becomes visible.

        Raises:
            DataError: What came is not what the name says; nothing is kept.
            QuotaError: The tenant would hold more bytes than it may.
        """
        # What is here already takes no more room, however often it is sent.
        known = self.size(name)
        room = self.most_bytes - self._held() if known is None else known
        with self.store.receiving(name, most_bytes=room) as writer:
            yield writer
        self._keep(name, size=writer.size)

    def _held(self) -> int:
        with self.engine.connect() as connection:
            return _held(connection, self.actor.tenant)

    def _keep(self, name: str, *, size: int) -> None:
        tenant = self.actor.tenant
        try:
            with self.engine.begin() as connection:
                one_at_a_time(connection, [tenant])
                values = {"tenant": tenant, "name": name, "size": size, "created": time.time()}
                connection.execute(insert(BLOBS).values(values))
                # Counted again: several uploads may have come in at once.
                if _held(connection, tenant) > self.most_bytes:
                    raise QuotaError(
                        f"The uploads would exceed {self.most_bytes} bytes. Expected no more in "
                        "all. Ask the operator for more room."
                    )
                audit(connection, self.actor, action="upload", target=name, detail={"size": size})
        except IntegrityError:
            return  # it was this tenant's already


def _held(connection: Connection, tenant: str) -> int:
    query = select(func.coalesce(func.sum(BLOBS.c.size), 0)).where(BLOBS.c.tenant == tenant)
    return int(connection.execute(query).scalar_one())
