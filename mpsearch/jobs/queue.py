"""What API and worker agree on about the queue: names, versions, how arguments are written."""

import sqlite3
from contextlib import closing
from typing import Final

from dbos import DBOS, DBOSPortableJSONSerializer
from sqlalchemy import make_url

APPLICATION: Final = "mpsearch"
QUEUE: Final = "dev:cpu"
WORKFLOW: Final = "search"
# Raise it when the steps of the workflow change: workers take only jobs of their own number.
WORKFLOW_SCHEMA: Final = "1"
# DBOS's own default is pickle, which would run whatever stands in the database.
SERIALIZER: Final = DBOSPortableJSONSerializer()
_SECONDS_TO_WAIT: Final = 30.0


def runners_queue(queue: str) -> str:
    """Return the queue of a device's runners: what waits on it takes the device for itself.

    A job's own workflow waits for its runners on the queue of jobs, and so holds back none.

    Example:
        >>> runners_queue("dev:cpu")
        'dev:cpu:runners'
    """
    return f"{queue}:runners"


def migrate_queue(url: str) -> None:
    """Make or upgrade the tables of DBOS: no client works before.

    On SQLite its file is put into write-ahead mode for good. DBOS itself leaves it at a journal
    that costs several waits for the disk a commit, and lets readers hold back writers.
    """
    DBOS.migrate(url)
    address = make_url(url)
    if address.get_backend_name() == "sqlite" and address.database is not None:
        with closing(sqlite3.connect(address.database, timeout=_SECONDS_TO_WAIT)) as connection:
            connection.execute("pragma journal_mode = wal")
