"""Who is alive: each worker on Postgres holds a lock of its session, as long as that lives.

Who can take the lock of another worker knows that it is dead, and gives its jobs back to their
queue. No clock decides: a worker that is only slow keeps its lock.
"""

import logging
import os
import zlib
from typing import Final, final

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

_LOG: Final = logging.getLogger("mpsearch.worker")
# Any number that nobody else locks in the same database: the letters "mps".
_SPACE: Final = 0x6D7073
LOST: Final = 75  # EX_TEMPFAIL of sysexits.h: start me again


@final
class Lease:
    """The lock of one worker, held by a connection of its own."""

    def __init__(self, engine: Engine, *, name: str) -> None:
        self._engine = engine
        self._name = name
        self._connection = self._open()
        if not _locked(self._connection, name):
            raise RuntimeError(f"Worker {name!r} is there already. Expected a name of its own.")

    def check(self) -> None:
        """End this process, and its runner with it, if the lock is lost: others have taken over."""
        try:
            self._connection.execute(text("select 1"))
        except DBAPIError:
            _LOG.exception("The database ended the session of this worker. It starts again.")
            os._exit(LOST)

    def take(self, name: str) -> bool:
        """Return whether another worker is dead; if so its lock is ours until `give_back`."""
        return _locked(self._connection, name)

    def give_back(self, name: str) -> None:
        """Let go of the lock of a dead worker."""
        self._connection.execute(text("select pg_advisory_unlock(:space, :number)"), _numbers(name))

    def _open(self) -> Connection:
        # Each statement by itself: a transaction left open would hold back cleaning up.
        return self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")


def _locked(connection: Connection, name: str) -> bool:
    query = text("select pg_try_advisory_lock(:space, :number)")
    return bool(connection.execute(query, _numbers(name)).scalar())


def _numbers(name: str) -> dict[str, int]:
    # As the database has them: with a sign, in 32 bits.
    return {"space": _SPACE, "number": zlib.crc32(name.encode()) - 2**31}
