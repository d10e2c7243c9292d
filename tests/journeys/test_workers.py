"""Several workers on Postgres: what a dead one leaves, another one finishes."""

import os
import signal
import time
import zlib
from pathlib import Path

import pytest
from sqlalchemy import text

from benchmarks.rest.server import Server, SmallModel
from benchmarks.rest.small_network import SmallNetwork
from benchmarks.rest.worker import worker
from benchmarks.service.api import Api
from benchmarks.service.postgres import Postgres
from benchmarks.waiting import ending, waited_for
from mpsearch.jobs.events import EventLog
from mpsearch.jobs.job import JobState
from mpsearch.jobs.store import JobStore
from mpsearch.jobs.tables import open_database

pytestmark = pytest.mark.slow


def test_a_restart_of_the_database_in_mid_job_loses_nothing(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres.database()
    monkeypatch.setenv("MPS_DATABASE_URL", url)
    model = SmallNetwork(folder=tmp_path / "root").write()
    with Server(tmp_path / "data", root=model.folder) as server:
        job_id = server.post(model.request())
        server.wait_for_a_phase(job_id)
        postgres.stop()
        away = server.client.get(f"/v1/jobs/{job_id}")
        assert away.status_code == 503, away.text
        time.sleep(2)
        postgres.start()
        assert server.ended(job_id)["metadata"]["state"] == "succeeded"
        store = JobStore(engine=open_database(url))
        check_events(store, job_id)
        store.engine.dispose()


def check_events(store: JobStore, job_id: str) -> None:
    """Check that a job was queued and ended once, and that its events have no gap."""
    events = EventLog(engine=store.engine).after(job_id, version=0)
    assert [event.version for event in events] == list(range(1, len(events) + 1))
    states = [event.data["state"] for event in events if event.kind == "state"]
    assert (states[0], states[-1]) == ("queued", "succeeded")
    assert states.count("succeeded") == 1
    assert "failed" not in states


def test_a_frozen_worker_that_comes_back_writes_nothing_any_more(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres.database()
    monkeypatch.setenv("MPS_DATABASE_URL", url)
    model = SmallModel(folder=tmp_path / "root").write()
    data = tmp_path / "data"
    store = JobStore(engine=open_database(url))

    def told() -> str:
        return f"The job stands at {store.get(job_id)}. {ending(data / 'worker.log')}"

    with Api(data, root=model.folder) as api, worker(data, root=model.folder) as first:
        with api.client() as client:
            posted = client.post("/v1/jobs", json=model.request())
        job_id = posted.headers["location"].removeprefix("/v1/jobs/")
        waited_for(lambda: store.get(job_id).progress, "a first step of the job", told=told)
        owner = store.get(job_id).owner
        first.send_signal(signal.SIGSTOP)
        with worker(data, root=model.folder):
            # Frozen it is alive, and keeps its job, as long as the database hears of it.
            time.sleep(8)
            assert store.get(job_id).owner == owner
            with store.engine.connect() as connection:
                query = "select pg_terminate_backend(pid) from pg_locks l where locktype = "
                connection.execute(text(f"{query}'advisory' and objid = :n"), {"n": number(owner)})
            waited_for(lambda: store.get(job_id).is_done, "the job's end", seconds=300, told=told)
            ended = store.get(job_id)
            assert ended.state is JobState.SUCCEEDED, ended.error
            assert ended.owner != owner
            first.send_signal(signal.SIGCONT)
            assert first.wait(timeout=120) == 75
            assert store.get(job_id) == ended
            check_events(store, job_id)
    store.engine.dispose()


def number(owner: str | None) -> int:
    """Return the second number of a worker's lock, as the database lists it: without a sign."""
    assert owner is not None
    return (zlib.crc32(owner.encode()) - 2**31) % 2**32


def test_the_job_of_a_dead_worker_goes_on_elsewhere(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres.database()
    monkeypatch.setenv("MPS_DATABASE_URL", url)
    model = SmallNetwork(folder=tmp_path / "root").write()
    data = tmp_path / "data"
    with Server(data, root=model.folder) as server, worker(data, root=model.folder):
        server.wait_for_workers(2)
        job_id = server.post(model.request())
        server.wait_for_a_phase(job_id)
        store = JobStore(engine=open_database(url))
        owner = store.get(job_id).owner
        assert owner is not None
        os.kill(int(owner.split("-")[-2]), signal.SIGKILL)
        assert server.ended(job_id)["metadata"]["state"] == "succeeded"
        assert store.get(job_id).owner != owner
        store.engine.dispose()
