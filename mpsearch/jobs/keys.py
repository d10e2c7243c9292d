"""Keys of callers: `mps_<id>_<secret>`, shown once; what is kept is an HMAC of the secret.

The HMAC's own key lies outside the database, so a copy of the database opens nothing.
"""

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, final

from sqlalchemy import Engine, Row, insert, select, update

from mpsearch.errors import AbsentError, UsageError
from mpsearch.jobs.database import Actor, audit
from mpsearch.jobs.tables import KEYS

TENANT: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_KEY: Final = re.compile(r"mps_([0-9a-f]{12})_([0-9a-f]{64})")
_ID_BYTES: Final = 6
_SECRET_BYTES: Final = 32
_DAY: Final = 86_400.0
_PEPPER_FILE: Final = "secret"


class Scope(StrEnum):
    """What a key is good for."""

    READ = "read"
    WRITE = "write"
    METRICS = "metrics"


@final
@dataclass(frozen=True, kw_only=True)
class Key:
    """A key without its secret; times are seconds since 1970."""

    id: str
    tenant: str
    note: str
    scopes: tuple[Scope, ...]
    created: float
    expires: float | None = None
    revoked: float | None = None

    @property
    def actor(self) -> Actor:
        """Return whom it acts for."""
        return Actor(tenant=self.tenant, name=self.id)

    def is_valid(self, *, now: float) -> bool:
        """Return whether it is neither revoked nor expired."""
        return self.revoked is None and (self.expires is None or now < self.expires)


@final
@dataclass(frozen=True, kw_only=True)
class KeyStore:
    """Keys in a database; `pepper` is the key of the HMAC."""

    engine: Engine
    pepper: bytes

    def create(
        self,
        tenant: str,
        *,
        scopes: Collection[Scope],
        note: str = "",
        days: float | None = None,
    ) -> tuple[Key, str]:
        """Make a key; the text that is returned with it is never seen again.

        Raises:
            UsageError: The tenant's name is malformed, or there is no scope.
        """
        if not TENANT.fullmatch(tenant) or not scopes or (days is not None and days <= 0):
            raise UsageError(
                f"A key for tenant {tenant!r} with scopes {sorted(scopes)}, {days} days cannot be "
                "made. Expected a tenant of lower-case letters, digits and hyphens, at least "
                "one scope, and more than 0 days. Mend the options."
            )
        now = time.time()
        key = Key(
            id=secrets.token_hex(_ID_BYTES),
            tenant=tenant,
            note=note[:200],
            scopes=tuple(sorted(set(scopes))),
            created=now,
            expires=None if days is None else now + days * _DAY,
        )
        secret = secrets.token_hex(_SECRET_BYTES)
        row = {**vars(key), "scopes": list(key.scopes), "digest": self._digest(key.id, secret)}
        with self.engine.begin() as connection:
            connection.execute(insert(KEYS).values(row))
            audit(
                connection,
                Actor(tenant=tenant, name="operator"),
                action="create key",
                target=f"keys/{key.id}",
                detail={"scopes": list(key.scopes), "expires": key.expires},
            )
        return key, f"mps_{key.id}_{secret}"

    def find(self, text: str) -> Key | None:
        """Return the key that a caller showed, None where it is not valid, for whatever reason."""
        match = _KEY.fullmatch(text)
        if match is None:
            return None
        key_id, secret = match.groups()
        with self.engine.connect() as connection:
            row = connection.execute(select(KEYS).where(KEYS.c.id == key_id)).one_or_none()
        # Compared even where there is none, so that the time taken tells nothing.
        expected = "" if row is None else row.digest
        is_right = hmac.compare_digest(self._digest(key_id, secret), expected)
        if row is None or not is_right:
            return None
        key = _key(row)
        return key if key.is_valid(now=time.time()) else None

    def still_valid(self, key_id: str) -> Key | None:
        """Return a key that was shown before, None where it has ended since."""
        with self.engine.connect() as connection:
            row = connection.execute(select(KEYS).where(KEYS.c.id == key_id)).one_or_none()
        key = None if row is None else _key(row)
        return key if key is not None and key.is_valid(now=time.time()) else None

    def revoke(self, key_id: str) -> Key:
        """End a key, from the next request on.

        Raises:
            AbsentError: There is none of this id.
        """
        with self.engine.begin() as connection:
            changed = connection.execute(
                update(KEYS)
                .where(KEYS.c.id == key_id, KEYS.c.revoked.is_(None))
                .values(revoked=time.time())
            )
            row = connection.execute(select(KEYS).where(KEYS.c.id == key_id)).one_or_none()
            if row is None:
                raise AbsentError(
                    f"Key {key_id!r} is not known. Expected the id of one. "
                    "`mpsearch keys list` shows them."
                )
            if changed.rowcount:
                operator = Actor(tenant=row.tenant, name="operator")
                audit(connection, operator, action="revoke key", target=f"keys/{key_id}")
            return _key(row)

    def all(self) -> tuple[Key, ...]:
        """Return every key, newest first."""
        with self.engine.connect() as connection:
            rows = connection.execute(select(KEYS).order_by(KEYS.c.created.desc()))
            return tuple(_key(row) for row in rows)

    def are_there(self) -> bool:
        """Return whether a key was ever made: from then on every request needs one."""
        with self.engine.connect() as connection:
            return connection.execute(select(KEYS.c.id).limit(1)).first() is not None

    def _digest(self, key_id: str, secret: str) -> str:
        message = f"{key_id}:{secret}".encode()
        return hmac.new(self.pepper, message, hashlib.sha256).hexdigest()


def scopes_named(names: Collection[str]) -> tuple[Scope, ...]:
    """Return scopes by their names.

    Raises:
        UsageError: There is none of a name.
    """
    unknown = sorted(set(names) - set(Scope))
    if unknown:
        raise UsageError(
            f"Scope {unknown[0]!r} is unknown. Expected some of {', '.join(Scope)}. Choose one."
        )
    return tuple(Scope(name) for name in names)


def pepper_of(folder: Path) -> bytes:
    """Return the secret of a data folder, readable by its owner alone; make it if needed."""
    path = folder / _PEPPER_FILE
    folder.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        unfinished = folder / f".{_PEPPER_FILE}.{secrets.token_hex(8)}"
        unfinished.touch(mode=0o600, exist_ok=False)
        unfinished.write_text(secrets.token_hex(_SECRET_BYTES))
        try:
            # Unlike a rename, this never replaces what another process has just made.
            path.hardlink_to(unfinished)
        except FileExistsError:
            pass
        finally:
            unfinished.unlink()
    return bytes.fromhex(path.read_text())


def _key(row: Row[Any]) -> Key:
    names = ("id", "tenant", "note", "created", "expires", "revoked")
    known = {name: getattr(row, name) for name in names}
    return Key(**known, scopes=tuple(Scope(scope) for scope in row.scopes))
