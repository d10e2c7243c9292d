"""Small things that every table's code needs: who acts, one at a time per tenant, the log."""

import time
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, final

from sqlalchemy import Connection, Row, insert, text

from mpsearch.jobs.job import Job, JobState
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
    row = audit_row(actor, action=action, target=target, detail=detail)
    connection.execute(insert(AUDIT), row)


def audit_row(
    actor: Actor, *, action: str, target: str, detail: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the row that says that it happened."""
    return {
        "created": time.time(),
        "tenant": actor.tenant,
        "actor": actor.name,
        "action": action,
        "target": target,
        "detail": dict(detail or {}),
    }


def note(
    connection: Connection, job_id: str, *, version: int, kind: str, data: Mapping[str, Any]
) -> None:
    """Write down, within a transaction, what brought a job to a version."""
    row = note_row(job_id, version=version, kind=kind, data=data)
    connection.execute(insert(JOB_EVENTS), row)


def note_row(job_id: str, *, version: int, kind: str, data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row that says what brought a job to a version."""
    values = {"job_id": job_id, "version": version, "kind": kind, "data": dict(data)}
    return {"created": time.time(), **values}


def job_of(row: Row[Any]) -> Job:
    """Return the job that a row holds."""
    known = {field.name: getattr(row, field.name) for field in fields(Job)}
    return Job(**{**known, "state": JobState(known["state"])})


def one_at_a_time(connection: Connection, tenants: Collection[str]) -> None:
    """Let no other transaction of these tenants that calls this run until ours has ended.

    To be called once, before anything else: SQLite has one writer anyway, which we become here,
    so that what is read afterwards still holds when it is written upon.
    """
    if connection.dialect.name != "postgresql":
        connection.execute(text("begin immediate"))
        return
    # In an order that all keep, so that nobody waits for who waits for them.
    for number in sorted({zlib.crc32(tenant.encode()) for tenant in tenants}):
        connection.execute(text("select pg_advisory_xact_lock(:number)"), {"number": number})
