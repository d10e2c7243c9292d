"""Shards of a real job: whatever is killed, its table has the bits of an undivided one."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.rest.server import Server, SmallModel
from benchmarks.service.postgres import Postgres
from mpsearch.core.files import load_table
from mpsearch.core.tables import SensitivityTable
from mpsearch.jobs.data_folder import DataFolder
from mpsearch.jobs.events import EventLog
from mpsearch.jobs.shards import Shard, ShardStore
from mpsearch.jobs.store import JobStore
from mpsearch.jobs.tables import open_database

pytestmark = pytest.mark.slow
# So short that whatever can be divided is.
SECONDS = 1e-6


def table(data: Path, job_id: str) -> bytes:
    found = load_table(data / "jobs" / job_id / "result" / "sensitivity.npz", SensitivityTable)
    return found.loss.tobytes() + found.stderr.tobytes()


def waited_for(shards: Callable[[], tuple[Shard, ...]], *, data: Path) -> None:
    """Wait until a shard is being measured."""
    deadline = time.monotonic() + 300
    while not any((data / str(shard.number) / "lock").exists() for shard in shards()):
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> SmallModel:
    return SmallModel(folder=tmp_path_factory.mktemp("root")).write()


@pytest.fixture(scope="module")
def undivided(model: SmallModel, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    data = tmp_path_factory.mktemp("undivided")
    with Server(data, root=model.folder) as server:
        job_id = server.post(model.request())
        assert server.ended(job_id)["metadata"]["state"] == "succeeded"
    store = ShardStore(engine=open_database(DataFolder(path=data).database_url))
    assert store.of(job_id) == ()  # one worker divides nothing unless it is asked to
    store.engine.dispose()
    return table(data, job_id)


@pytest.mark.parametrize("killed", ["runner", "worker", "api"])
def test_killed_shards_go_on_and_find_the_same_bits(
    model: SmallModel, undivided: bytes, tmp_path: Path, killed: str
) -> None:
    with Server(tmp_path, root=model.folder, shard_seconds=SECONDS) as server:
        job_id = server.post(model.request())
        shards = ShardStore(engine=open_database(DataFolder(path=tmp_path).database_url))
        waited_for(lambda: shards.of(job_id), data=tmp_path / "jobs" / job_id / "shards")
        if killed == "api":
            server.kill()
            server.start()
        else:
            process = server.worker() if killed == "worker" else server.runner()
            assert process is not None
            os.kill(process, signal.SIGKILL)
        assert server.ended(job_id)["metadata"]["state"] == "succeeded"
        assert len(shards.of(job_id)) == 2
        assert all(shard.is_done and shard.error is None for shard in shards.of(job_id))
        events = EventLog(engine=shards.engine).after(job_id, version=0)
        assert [event.version for event in events] == list(range(1, len(events) + 1))
        layers = sum(len(shard.layers) for shard in shards.of(job_id))
        told = [event.data for event in events if event.data.get("total") == layers]
        assert told[-1]["done"] == layers
        shards.engine.dispose()
    assert table(tmp_path, job_id) == undivided


def test_a_cancelled_job_has_no_shard_that_runs(model: SmallModel, tmp_path: Path) -> None:
    with Server(tmp_path, root=model.folder, shard_seconds=SECONDS) as server:
        job_id = server.post(model.request())
        shards = ShardStore(engine=open_database(DataFolder(path=tmp_path).database_url))
        waited_for(lambda: shards.of(job_id), data=tmp_path / "jobs" / job_id / "shards")
        server.client.post(f"/v1/jobs/{job_id}:cancel").raise_for_status()
        start = time.monotonic()
        while server.runner() is not None or not server.job(job_id)["done"]:
            assert time.monotonic() - start < 3  # one on a machine with nothing else to do
            time.sleep(0.02)
        assert server.job(job_id)["metadata"]["state"] == "cancelled"
        # The worker is free again.
        again = server.post(model.request())
        assert server.ended(again)["metadata"]["state"] == "succeeded"
        shards.engine.dispose()


def test_workers_share_the_shards_of_a_job_and_one_of_them_may_die(
    model: SmallModel,
    undivided: bytes,
    postgres: Postgres,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = postgres.database()
    monkeypatch.setenv("MPS_DATABASE_URL", url)
    command = [sys.executable, "-m", "mpsearch", "worker", f"--data={tmp_path}"]
    command += [f"--root=r={model.folder}", f"--shard-seconds={SECONDS}"]
    with (
        Server(tmp_path, root=model.folder, shard_seconds=SECONDS) as server,
        subprocess.Popen(command) as second,
    ):
        try:
            while server.client.get("/readyz").json()["workers"] < 2:
                time.sleep(0.2)
            job_id = server.post(model.request())
            store = JobStore(engine=open_database(url))
            shards = ShardStore(engine=store.engine)
            waited_for(lambda: shards.of(job_id), data=tmp_path / "jobs" / job_id / "shards")
            assert len(shards.of(job_id)) == 4
            owner = store.get(job_id).owner
            assert owner is not None
            os.kill(int(owner.split("-")[-2]), signal.SIGKILL)
            assert server.ended(job_id)["metadata"]["state"] == "succeeded"
            assert all(shard.is_done and shard.error is None for shard in shards.of(job_id))
            store.engine.dispose()
        finally:
            second.kill()
    assert table(tmp_path, job_id) == undivided
