"""Small things that every table's code needs: who acts, one at a time per tenant, the log."""

import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, final

from sqlalchemy import Connection, insert, text

from mpsearch.jobs.tables import AUDIT, JOB_EVENTS

# The tenant of whoever asks over loopback while there are no keys.
LOCAL: Final = "local"


@final
@dataclass(frozen=True, kw_only=True)
class Actor:
    """Whoever acts: a tenant, by the key of this id."""

    tenant: str
    name: str


LOOPBACK: Final = Actor(tenant=LOCAL, name="loopback")


def audit(
    connection: Connection,
    actor: Actor,
    *,
    action: str,
    target: str,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Note, within a transaction, that it happened: both become true, or neither."""
    connection.execute(
        insert(AUDIT).values(
            created=time.time(),
            tenant=actor.tenant,
            actor=actor.name,
            action=action,
            target=target,
            detail=dict(detail or {}),
        )
    )


def note(
    connection: Connection, job_id: str, *, version: int, kind: str, data: Mapping[str, Any]
) -> None:
    """Write down, within a transaction, what brought a job to a version."""
    values = {"job_id": job_id, "version": version, "kind": kind, "data": dict(data)}
    connection.execute(insert(JOB_EVENTS).values(created=time.time(), **values))


def one_at_a_time(connection: Connection, tenant: str) -> None:
    """Let no other transaction of a tenant that calls this run until ours has ended.

    SQLite has one writer anyway, once a transaction has written.
    """
    if connection.dialect.name == "postgresql":
        number = zlib.crc32(tenant.encode())
        connection.execute(text("select pg_advisory_xact_lock(:number)"), {"number": number})
