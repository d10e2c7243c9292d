"""Several workers on Postgres: what a dead one leaves, another one finishes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.rest.server import Server, SmallModel
from benchmarks.service.postgres import Postgres
from mpsearch.jobs.store import JobStore
from mpsearch.jobs.tables import open_database

pytestmark = pytest.mark.slow


def test_the_job_of_a_dead_worker_goes_on_elsewhere(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres.database()
    monkeypatch.setenv("MPS_DATABASE_URL", url)
    model = SmallModel(folder=tmp_path / "root").write()
    data = tmp_path / "data"
    command = [sys.executable, "-m", "mpsearch", "worker", f"--data={data}"]
    with (
        Server(data, root=model.folder) as server,
        subprocess.Popen([*command, f"--root=r={model.folder}"]) as second,
    ):
        try:
            while server.client.get("/readyz").json()["workers"] < 2:
                time.sleep(0.2)
            job_id = server.post(model.request())
            while server.job(job_id)["metadata"].get("phase") is None:
                time.sleep(0.1)
            store = JobStore(engine=open_database(url))
            owner = store.get(job_id).owner
            assert owner is not None
            os.kill(int(owner.split("-")[-2]), signal.SIGKILL)
            assert server.ended(job_id)["metadata"]["state"] == "succeeded"
            assert store.get(job_id).owner != owner
            store.engine.dispose()
        finally:
            second.kill()
