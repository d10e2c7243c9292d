"""Laws of connections: nobody holds a row for ever."""

import pytest
from sqlalchemy import update

from benchmarks.service.postgres import Postgres
from mpsearch.jobs import tables
from mpsearch.jobs.migrate import migrate
from mpsearch.jobs.store import JobStore
from mpsearch.jobs.tables import JOBS, open_database


def test_a_worker_that_freezes_within_a_transaction_lets_go_of_its_rows(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "_SECONDS_OF_AN_IDLE_TRANSACTION", 1)
    url = postgres.database()
    # The other one gives up at last, so that the test ends.
    patience = "?options=-c%20lock_timeout%3D60s"
    frozen, other = open_database(url), open_database(f"{url}{patience}")
    migrate(other)
    store = JobStore(engine=other, owner="other")
    job = store.add({"budgets": {}})
    held = frozen.connect()
    held.execute(update(JOBS).where(JOBS.c.id == job.id).values(owner="frozen"))
    store.claim(job.id)
    assert store.get(job.id).owner == "other"
    held.invalidate()
    held.close()
    for engine in (frozen, other):
        engine.dispose()
