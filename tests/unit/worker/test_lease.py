"""Laws of leases: a worker is dead when its session is, and not before."""

import time
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, text

from benchmarks.service.postgres import Postgres
from mpsearch.jobs.tables import open_database
from mpsearch.worker.lease import Lease


@pytest.fixture
def engine(postgres: Postgres) -> Iterator[Engine]:
    opened = open_database(postgres.database())
    yield opened
    opened.dispose()


def end_session(engine: Engine, lease: Lease) -> None:
    """End the session of a lease, as a dead process or a restarted database does."""
    number = lease._connection.execute(text("select pg_backend_pid()")).scalar_one()
    with engine.connect() as connection:
        connection.execute(text("select pg_terminate_backend(:number)"), {"number": number})


def test_a_living_worker_cannot_be_taken(engine: Engine) -> None:
    one, two = Lease(engine, name="one"), Lease(engine, name="two")
    assert not two.take("one")
    assert not one.take("two")
    one.check()


def test_a_dead_worker_is_taken_by_one_only(engine: Engine) -> None:
    one, two, three = (Lease(engine, name=name) for name in ("one", "two", "three"))
    end_session(engine, one)
    deadline = time.monotonic() + 20
    while not two.take("one"):  # a session ends in its own time
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not three.take("one")
    two.give_back("one")
    assert three.take("one")


def test_a_name_is_held_once(engine: Engine) -> None:
    Lease(engine, name="one")
    with pytest.raises(RuntimeError, match="there already"):
        Lease(engine, name="one")


def test_who_has_lost_its_lease_ends(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    monkeypatch.setattr("mpsearch.worker.lease.os._exit", ended.append)
    lease = Lease(engine, name="one")
    lease.check()
    assert ended == []
    end_session(engine, lease)
    lease.check()
    assert ended == [75]
