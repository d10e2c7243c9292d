"""Shards of a real job: whatever is killed, its table has the bits of an undivided one."""

import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.rest.server import Server
from benchmarks.rest.small_network import SmallNetwork
from benchmarks.rest.worker import worker
from benchmarks.service.postgres import Postgres
from mpsearch.core.files import load_table
from mpsearch.core.tables import SensitivityTable
from mpsearch.jobs.data_folder import DataFolder
from mpsearch.jobs.events import EventLog
from mpsearch.jobs.shards import ShardStore
from mpsearch.jobs.store import JobStore
from mpsearch.jobs.tables import open_database

pytestmark = pytest.mark.slow
# So short that whatever can be divided is.
SECONDS = 1e-6


def table(data: Path, job_id: str) -> bytes:
    found = load_table(data / "jobs" / job_id / "result" / "sensitivity.npz", SensitivityTable)
    return found.loss.tobytes() + found.stderr.tobytes()


def wait_for_a_shard(server: Server, job_id: str, *, shards: ShardStore) -> None:
    """Wait until a shard is being measured."""
    folder = server.data / "jobs" / job_id / "shards"

    def is_measured() -> bool:
        return any((folder / str(each.number) / "lock").exists() for each in shards.of(job_id))

    server.waited_for(is_measured, f"a shard of job {job_id} at work", seconds=300)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> SmallNetwork:
    return SmallNetwork(folder=tmp_path_factory.mktemp("root")).write()


@pytest.fixture(scope="module")
def undivided(model: SmallNetwork, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    data = tmp_path_factory.mktemp("undivided")
    with Server(data, root=model.folder) as server:
        job_id = server.post(model.request())
        assert server.ended(job_id)["metadata"]["state"] == "succeeded"
    store = ShardStore(engine=open_database(DataFolder(path=data).database_url))
    assert store.of(job_id) == ()  # one worker divides nothing unless it is asked to
    store.engine.dispose()
    return table(data, job_id)


@pytest.fixture(scope="module")
def server(model: SmallNetwork, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Return a server whose one worker divides whatever can be divided."""
    data = tmp_path_factory.mktemp("data")
    with Server(data, root=model.folder, shard_seconds=SECONDS) as running:
        yield running


@pytest.fixture
def shards(server: Server) -> Iterator[ShardStore]:
    store = ShardStore(engine=open_database(DataFolder(path=server.data).database_url))
    yield store
    store.engine.dispose()


def posted(server: Server, model: SmallNetwork) -> str:
    """Post a job that has to measure everything itself."""
    shutil.rmtree(server.data / "cache", ignore_errors=True)
    return server.post(model.request())


@pytest.mark.parametrize("killed", ["runner", "worker", "api"])
def test_killed_shards_go_on_and_find_the_same_bits(
    server: Server, shards: ShardStore, model: SmallNetwork, undivided: bytes, killed: str
) -> None:
    job_id = posted(server, model)
    wait_for_a_shard(server, job_id, shards=shards)
    if killed == "api":
        server.kill()
        server.start()
    else:
        look = server.worker if killed == "worker" else server.runner
        os.kill(server.waited_for(look, f"a {killed} to kill"), signal.SIGKILL)
    assert server.ended(job_id)["metadata"]["state"] == "succeeded"
    assert len(shards.of(job_id)) == 2
    assert all(shard.is_done and shard.error is None for shard in shards.of(job_id))
    events = EventLog(engine=shards.engine).after(job_id, version=0)
    assert [event.version for event in events] == list(range(1, len(events) + 1))
    layers = sum(len(shard.layers) for shard in shards.of(job_id))
    told = [event.data for event in events if event.data.get("total") == layers]
    assert told[-1]["done"] == layers
    assert table(server.data, job_id) == undivided


def test_a_cancelled_job_has_no_shard_that_runs(
    server: Server, shards: ShardStore, model: SmallNetwork
) -> None:
    job_id = posted(server, model)
    wait_for_a_shard(server, job_id, shards=shards)
    server.client.post(f"/v1/jobs/{job_id}:cancel").raise_for_status()
    start = time.monotonic()
    while server.runner() is not None or not server.job(job_id)["done"]:
        assert time.monotonic() - start < 3  # one on a machine with nothing else to do
        time.sleep(0.02)
    assert server.job(job_id)["metadata"]["state"] == "cancelled"
    # The worker is free again.
    assert server.ended(posted(server, model))["metadata"]["state"] == "succeeded"


def test_workers_share_the_shards_of_a_job_and_one_of_them_may_die(
    model: SmallNetwork,
    undivided: bytes,
    postgres: Postgres,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = postgres.database()
    monkeypatch.setenv("MPS_DATABASE_URL", url)
    with (
        Server(tmp_path, root=model.folder, shard_seconds=SECONDS) as server,
        worker(tmp_path, root=model.folder, shard_seconds=SECONDS),
    ):
        server.wait_for_workers(2)
        job_id = server.post(model.request())
        store = JobStore(engine=open_database(url))
        shards = ShardStore(engine=store.engine)
        wait_for_a_shard(server, job_id, shards=shards)
        assert len(shards.of(job_id)) == 4
        owner = store.get(job_id).owner
        assert owner is not None
        os.kill(int(owner.split("-")[-2]), signal.SIGKILL)
        assert server.ended(job_id)["metadata"]["state"] == "succeeded"
        assert all(shard.is_done and shard.error is None for shard in shards.of(job_id))
        store.engine.dispose()
    assert table(tmp_path, job_id) == undivided
