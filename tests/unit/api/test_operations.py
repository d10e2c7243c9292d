"""Laws of running the service: what it says about itself, to people and to machines."""

import json
import logging
import shutil
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
import structlog
from fastapi.testclient import TestClient

from mpsearch.api.service import Service
from mpsearch.jobs.job import JobState
from mpsearch.jobs.logs import log_as_json


@pytest.fixture
def lines(tmp_path: Path) -> Iterator[Path]:
    """Return the file that JSON logs of this test go to."""
    root, ours = logging.getLogger(), logging.getLogger("mpsearch")
    before = (root.handlers, root.level, ours.handlers, ours.level)
    with (tmp_path / "log").open("w", buffering=1) as stream:
        log_as_json(stream)
        yield tmp_path / "log"
    root.handlers, ours.handlers = before[0], before[2]
    root.setLevel(before[1])
    ours.setLevel(before[3])
    logging.getLogger("mpsearch.access").setLevel(logging.WARNING)


def test_a_server_that_can_take_jobs_is_ready(
    client: TestClient, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = client.get("/readyz").json()
    service.fleet.beat("one", queue="dev:cpu")
    told = client.get("/readyz").json()
    assert (told["status"], told["workers"]) == ("ready", before["workers"] + 1)
    usage = namedtuple("usage", "total used free")  # noqa: PYI024  # as shutil has it
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1, 1, 0))
    full = client.get("/readyz")
    assert (full.status_code, full.headers["content-type"]) == (503, "application/problem+json")


def test_metrics_count_requests_jobs_and_workers(client: TestClient, service: Service) -> None:
    job = service.store.add({})
    service.store.finish(job.id, state=JobState.FAILED)
    service.fleet.beat("one", queue="dev:cpu")
    for _ in range(3):
        client.get(f"/v1/jobs/{job.id}")
    client.get("/nowhere/a/stranger/chose")
    text = client.get("/metrics").text
    failed = service.store.counts()["failed"]
    assert f'mpsearch_jobs{{state="failed"}} {float(failed)}' in text
    assert 'mpsearch_workers{queue="dev:cpu"} 1.0' in text
    counted = [line for line in text.splitlines() if 'job_id:uuid}"' in line and "total" in line]
    assert any('method="GET"' in line and 'status="200"' in line for line in counted), text
    assert job.id not in text
    assert "stranger" not in text


def test_each_answer_has_the_id_of_its_request(client: TestClient) -> None:
    UUID(client.get("/healthz").headers["x-request-id"])
    chosen = client.get("/healthz", headers={"x-request-id": "mine-1"})
    assert chosen.headers["x-request-id"] == "mine-1"
    odd = client.get("/healthz", headers={"x-request-id": 'x" injected'})
    assert "injected" not in odd.headers["x-request-id"]


def test_logs_are_json_with_the_ids_of_request_and_job(
    client: TestClient, service: Service, lines: Path
) -> None:
    job = service.store.add({})
    client.get(f"/v1/jobs/{job.id}", headers={"x-request-id": "mine-2"})
    (told,) = [json.loads(line) for line in lines.read_text().splitlines()]
    assert told["request_id"] == "mine-2"
    assert told["job_id"] == job.id
    assert (told["status"], told["tenant"], told["level"]) == (200, "local", "info")
    with structlog.contextvars.bound_contextvars(job_id="x"):
        logging.getLogger("mpsearch.worker").warning("gone")
    assert json.loads(lines.read_text().splitlines()[-1])["job_id"] == "x"


def test_a_backup_is_a_copy_that_opens(service: Service, tmp_path: Path) -> None:
    import sqlite3

    job = service.store.add({})
    source = service.settings.data.path / "jobs.sqlite"
    with sqlite3.connect(source) as live, sqlite3.connect(tmp_path / "jobs.sqlite") as copy:
        live.backup(copy)
    from mpsearch.jobs.migrate import migrate
    from mpsearch.jobs.store import JobStore
    from mpsearch.jobs.tables import open_database

    engine = open_database(f"sqlite:///{tmp_path / 'jobs.sqlite'}")
    migrate(engine)
    assert JobStore(engine=engine).get(job.id) == job
    engine.dispose()
