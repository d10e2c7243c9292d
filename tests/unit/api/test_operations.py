"""Laws of running the service: what it says about itself, to people and to machines."""

import errno
import hashlib
import json
import logging
import shutil
from collections import namedtuple
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import structlog
from fastapi.testclient import TestClient
from sqlalchemy import event, text
from sqlalchemy.exc import OperationalError

from mpsearch.api.app import build_app
from mpsearch.api.service import Service
from mpsearch.api.settings import Settings
from mpsearch.jobs.data_folder import DataFolder
from mpsearch.jobs.job import JobState
from mpsearch.jobs.keys import KeyStore
from mpsearch.jobs.logs import log_as_json
from mpsearch.jobs.store import JobStore

PROBLEM = "application/problem+json"


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


def test_a_database_without_room_refuses_what_needs_some_and_loses_nothing(
    settings: Settings, body: dict[str, Any], tmp_path: Path
) -> None:
    own = replace(settings, data=DataFolder(path=tmp_path))
    with TestClient(
        build_app(own), base_url="http://127.0.0.1", raise_server_exceptions=False
    ) as client:
        service: Any = client.app
        engine = service.state.service.store.engine
        job = service.state.service.store.add({})

        def fill(connection: Any, *_: object) -> None:  # noqa: ANN401 - of the driver
            (pages,) = connection.execute("PRAGMA page_count").fetchone()
            connection.execute(f"PRAGMA max_page_count = {pages}")

        event.listen(engine, "checkout", fill)
        large = {**body, "fixed": {f"layer.{n}": "w8" for n in range(2000)}}
        answer = client.post("/v1/jobs", json=large)
        assert (answer.status_code, answer.headers["content-type"]) == (507, PROBLEM)
        assert client.get(f"/v1/jobs/{job.id}").status_code == 200
        event.remove(engine, "checkout", fill)
        with engine.connect() as connection:
            connection.execute(text("PRAGMA max_page_count = 1000000"))
        engine.dispose()
        assert client.post("/v1/jobs", json=large).status_code == 202
        assert len(client.get("/v1/jobs").json()["jobs"]) == 2


@pytest.mark.parametrize("before_the_route", [True, False])
def test_a_database_that_is_not_there_is_told_and_waited_for(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, *, before_the_route: bool
) -> None:
    def gone(*_: object, **__: object) -> None:
        raise OperationalError("select 1", None, ConnectionError("refused"))

    monkeypatch.setattr(KeyStore if before_the_route else JobStore, "are_there" if
                        before_the_route else "page", gone)  # fmt: skip
    answer = client.get("/v1/jobs")
    assert (answer.status_code, answer.headers["content-type"]) == (503, PROBLEM)
    assert int(answer.headers["retry-after"]) >= 1


def test_an_upload_that_finds_the_disk_full_is_507_and_leaves_nothing(
    client: TestClient, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    place = "/v1/blobs/sha256:" + hashlib.sha256(b"no room").hexdigest()
    with monkeypatch.context() as patched:
        patched.setattr("mpsearch.jobs.blobs.os.fsync", full)
        answer = client.put(place, content=b"no room")
    assert (answer.status_code, answer.headers["content-type"]) == (507, PROBLEM)
    assert list(service.blobs.folder.rglob(".incoming-*")) == []
    assert client.head(place).status_code == 404
    assert client.put(place, content=b"no room").status_code == 201
