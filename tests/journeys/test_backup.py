"""A backup taken while the service works, everything lost, restored: it goes on from there."""

import hashlib
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest

from benchmarks.rest.server import Server, SmallModel
from benchmarks.rest.small_network import SmallNetwork
from benchmarks.service.postgres import Postgres

pytestmark = pytest.mark.slow

# As docs/service.md lists them: databases first, since what a row names is there before the row;
# the queue before all, since a job without a workflow is queued anew, one that has ended is not.
DATABASES: Final = ("workflows.sqlite", "jobs.sqlite")
FILES: Final = ("secret", "blobs", "jobs", "cache", "caches")


def uploaded(server: Server, path: Path) -> str:
    content = path.read_bytes()
    name = "sha256:" + hashlib.sha256(content).hexdigest()
    server.client.put(f"/v1/blobs/{name}", content=content).raise_for_status()
    return name


def request_by_uploads(server: Server, network: SmallNetwork) -> dict[str, Any]:
    files = {"net.onnx": uploaded(server, network.folder / "net.onnx")}
    data = {"blob": uploaded(server, network.folder / "points.npz"), "format": "npz"}
    return {**network.request(), "model": {"files": files}, "calibration": data}


def request_of_a_folder(server: Server, model: SmallModel) -> dict[str, Any]:
    """Return a job that takes longer, of a model of several files."""
    folder = model.folder / "model"
    names = ("config.json", "model.safetensors")
    files = {name: uploaded(server, folder / name) for name in names}
    data = {"blob": uploaded(server, model.folder / "samples.npz"), "format": "npz"}
    return {**model.request(), "model": {"files": files}, "calibration": data}


def copied(data: Path, backup: Path) -> None:
    for name in FILES:
        if (data / name).is_dir():
            # A file that its writer has renamed since we listed it is in the copy or measured anew.
            shutil.copytree(data / name, backup / name, ignore=unfinished)
        elif (data / name).exists():
            shutil.copy2(data / name, backup / name)


def unfinished(_: str, names: list[str]) -> list[str]:
    return [name for name in names if name.startswith(".")]


def copied_databases(data: Path, backup: Path) -> None:
    for name in DATABASES:
        source, target = sqlite3.connect(data / name), sqlite3.connect(backup / name)
        with closing(source), closing(target):
            source.backup(target)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_restored_service_has_its_plans_and_does_its_pending_jobs(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    postgres: Postgres | None = None
    if kind == "postgresql":
        postgres = request.getfixturevalue("postgres")
        url = postgres.database()
        monkeypatch.setenv("MPS_DATABASE_URL", url)
    model = SmallModel(folder=tmp_path / "root").write()
    network = SmallNetwork(folder=tmp_path / "root").write()
    data, backup = tmp_path / "data", tmp_path / "backup"
    backup.mkdir()
    with Server(data, root=model.folder) as server:
        body = request_by_uploads(server, network)
        done = server.post(body)
        assert server.ended(done)["metadata"]["state"] == "succeeded"
        plan = server.client.get(f"/v1/jobs/{done}/plan").content
        running = server.post({**request_of_a_folder(server, model), "seed": 1})
        waiting = server.post({**body, "budgets": {"weight_bytes": "60%"}})
        server.wait_for_a_phase(running)
        if postgres is None:
            copied_databases(data, backup)
        else:
            postgres.dump(url, backup / "dump.sql")
        copied(data, backup)
        later = server.post({**body, "seed": 2})
        server.kill()
    shutil.rmtree(data)
    shutil.copytree(backup, data)
    if postgres is not None:
        monkeypatch.setenv("MPS_DATABASE_URL", postgres.restored(backup / "dump.sql"))
    with Server(data, root=model.folder) as server:
        assert server.client.get(f"/v1/jobs/{done}/plan").content == plan
        assert server.client.get(f"/v1/jobs/{later}").status_code == 404
        # In the backup they had not ended.
        assert not server.job(running)["done"]
        assert not server.job(waiting)["done"]
        for job_id in (running, waiting):
            assert server.ended(job_id)["metadata"]["state"] == "succeeded"
        solve = {"job": done, "budgets": {"weight_bytes": "60%"}}
        assert server.client.post("/v1/plans:solve", json=solve).status_code == 200
        assert server.ended(server.post(body))["metadata"]["state"] == "succeeded"
