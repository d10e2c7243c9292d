"""Laws of the client, against the application itself."""

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from mpsearch.api.app import build_app
from mpsearch.api.server import listen, url_of
from mpsearch.api.service import Service
from mpsearch.api.settings import Settings
from mpsearch.cli.app import app
from mpsearch.client import Client
from mpsearch.core.files import write_atomically
from mpsearch.core.progress import ProgressEvent
from mpsearch.errors import DataError, ModelError, ServiceError
from mpsearch.jobs.data_folder import DataFolder
from mpsearch.jobs.job import JobState
from mpsearch.jobs.keys import Scope


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with what looks like a model and data."""
    folder = tmp_path_factory.mktemp("root")
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text("{}")
    header = b"{}      "
    (folder / "model" / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    (folder / "data.jsonl").write_text('{"text": "a"}\n')
    return folder


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Iterator[tuple[str, Service]]:
    """Return the address of a server without a worker, and what it works with."""
    settings = Settings(data=DataFolder(path=tmp_path_factory.mktemp("data")), roots={"r": root})
    application = build_app(settings)
    with TestClient(application), listen(0) as listener:
        server = uvicorn.Server(uvicorn.Config(application, log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield url_of(listener), application.state.service
        server.should_exit = True
        thread.join()


@pytest.fixture
def client(running: tuple[str, Service]) -> Iterator[Client]:
    with Client(running[0]) as made:
        yield made


@pytest.fixture
def request_body() -> dict[str, Any]:
    return {
        "model": {"root": "r", "path": "model"},
        "calibration": {"root": "r", "path": "data.jsonl"},
        "budgets": {"weight_bytes": "25%"},
    }


def end(service: Service, job_id: str) -> None:
    """Let a job succeed, with a plan."""
    service.store.start(job_id)
    event = ProgressEvent(phase="measure", done=1, total=1, seconds=1.0)
    service.store.report(job_id, event, step=1)
    for name in ("plan.json", "report.html", "frontier.json", "verification.json"):
        write_atomically(service.settings.data.result(job_id) / name, b"[]")
    service.store.finish(job_id, state=JobState.SUCCEEDED)


def test_a_job_goes_from_upload_to_plan(
    client: Client, running: tuple[str, Service], root: Path, tmp_path: Path
) -> None:
    request = {
        "model": client.upload_model(root / "model"),
        "calibration": client.upload_data(root / "data.jsonl"),
        "budgets": {"weight_bytes": "25%"},
    }
    assert client.validate(request)["seconds"] > 0
    job = client.submit(request, once="mine")
    assert client.submit(request, once="mine") == job
    job_id = job["name"].removeprefix("jobs/")
    timer = threading.Timer(0.3, end, (running[1], job_id))
    timer.start()
    events = list(client.events(job["name"]))
    assert [event["id"] for event in events] == [1, 2, 3, 4]
    assert client.wait(job["name"])["metadata"]["state"] == "succeeded"
    assert client.fetch(job_id, "plan", to=tmp_path / "plan.json").read_bytes() == b"[]"
    assert job_id in {found["name"].removeprefix("jobs/") for found in client.jobs()}
    client.delete(job_id)
    with pytest.raises(ServiceError, match="not known") as caught:
        client.job(job_id)
    assert (caught.value.status, caught.value.kind) == (404, "absent")


def test_a_stream_comes_to_its_end_over_a_real_connection(
    client: Client, running: tuple[str, Service]
) -> None:
    job = running[1].store.add({})
    threading.Timer(0.3, end, (running[1], job.id)).start()
    answer = client._http.get(f"/v1/jobs/{job.id}/events")
    assert [line for line in answer.text.splitlines() if line.startswith("id: ")] == [
        f"id: {number}" for number in range(1, 5)
    ]


def test_what_the_service_has_is_not_sent_again(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 3_000_000)
    sent: list[str] = []
    client._http.event_hooks["request"].append(lambda request: sent.append(request.method))
    name = client.upload(path)
    assert name == "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
    assert client.upload(path) == name
    assert sent == ["HEAD", "PUT", "HEAD"]


def test_every_page_is_listed(client: Client, running: tuple[str, Service]) -> None:
    made = {running[1].store.add({}).id for _ in range(60)}
    listed = [job["name"].removeprefix("jobs/") for job in client.jobs(state="queued")]
    assert made <= set(listed)
    assert len(listed) == len(set(listed))


def test_a_key_travels_as_a_header(tmp_path: Path, root: Path) -> None:
    settings = Settings(data=DataFolder(path=tmp_path), host="10.0.0.1", roots={"r": root})
    with TestClient(build_app(settings)) as inner:
        served: Any = inner.app
        _, key = served.state.service.keys.create("a", scopes=(Scope.READ,))

        def answer(request: httpx2.Request) -> httpx2.Response:
            got = inner.request(request.method, str(request.url), headers=dict(request.headers))
            return httpx2.Response(got.status_code, content=got.content, headers=got.headers)

        over = httpx2.MockTransport(answer)
        with Client("http://service.example", key=key, transport=over) as known:
            assert known.devices() == []
        with (
            Client("http://service.example", transport=over) as stranger,
            pytest.raises(ServiceError, match="mpsearch keys create") as caught,
        ):
            stranger.devices()
        assert caught.value.status == 401


def test_a_broken_stream_goes_on_where_it_was() -> None:
    asked: list[str] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request.headers.get("last-event-id", "-"))
        after = int(asked[-1])
        if len(asked) == 2:
            raise httpx2.ReadError("broken")
        text = f'event: state\ndata: {{"state": "x", "last": {str(after == 2).lower()}}}\n'
        return httpx2.Response(200, text=f": ping\n\n{text}id: {after + 1}\n\n")

    def route(request: httpx2.Request) -> httpx2.Response:
        if request.url.path.endswith("/events"):
            return answer(request)
        return httpx2.Response(200, json={"done": False})

    with Client(transport=httpx2.MockTransport(route)) as client:
        assert [event["id"] for event in client.events("x")] == [1, 2, 3]
    assert asked == ["0", "1", "1", "2"]


def test_what_is_no_service_is_said_to_be_none() -> None:
    def answer(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(502, text="<html>")

    with (
        Client(transport=httpx2.MockTransport(answer)) as client,
        pytest.raises(ServiceError, match="not as the service does"),
    ):
        client.devices()
    with (
        Client("http://127.0.0.1:9") as nobody,
        pytest.raises(ServiceError, match="mpsearch serve"),
    ):
        nobody.devices()


def test_what_cannot_be_sent_is_refused_here(client: Client, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nothing to send"):
        client.upload_model(tmp_path)
    with pytest.raises(DataError, match=r"\.npz or \.jsonl"):
        client.upload_data(tmp_path / "x.csv")


def test_the_commands_do_the_same(running: tuple[str, Service], root: Path, tmp_path: Path) -> None:
    url, service = running
    invoke: Callable[..., Any] = CliRunner().invoke
    posted = invoke(
        app,
        [
            *("jobs", "submit", "--root", "r", "--model", "model", "--calibration", "data.jsonl"),
            *("--budget", "weight_bytes=25%", "--url", url, "--json"),
        ],
    )
    assert posted.exit_code == 0, posted.output

    job_id = json.loads(posted.stdout)["name"].removeprefix("jobs/")
    listed = invoke(app, ["jobs", "list", "--state", "queued"], env={"MPS_URL": url})
    assert job_id in listed.stdout
    early = invoke(app, ["jobs", "fetch", job_id, "--url", url])
    assert (early.exit_code, "has no result" in early.stderr) == (1, True)
    threading.Timer(0.3, end, (service, job_id)).start()
    watched = invoke(app, ["jobs", "watch", job_id, "--url", url])
    assert "succeeded" in watched.stdout
    output = tmp_path / "plan"
    fetched = invoke(app, ["jobs", "fetch", job_id, "--url", url, "--output", str(output)])
    assert fetched.exit_code == 0, fetched.output
    assert {path.name for path in output.iterdir()} == {
        "plan.json", "report.html", "frontier.json", "verification.json"
    }  # fmt: skip
    again = invoke(app, ["jobs", "cancel", job_id, "--url", url])
    assert (again.exit_code, "nothing to cancel" in again.stderr) == (1, True)
    uploaded = invoke(
        app,
        [
            *("jobs", "submit", "--model", str(root / "model")),
            *("--calibration", str(root / "data.jsonl"), "--budget", "weight_bytes=25%"),
            *("--url", url, "--json"),
        ],
    )
    assert uploaded.exit_code == 0, uploaded.output


def test_submit_posts_what_search_takes(running: tuple[str, Service], tmp_path: Path) -> None:
    url, service = running
    groups = tmp_path / "groups.toml"
    groups.write_text(
        "[[group]]\nname = 'a'\nlayers = ['x*']\nmetric = 'sqnr_list'\n"
        "[[group]]\nname = 'b'\nlayers = ['*']\n"
    )
    posted = CliRunner().invoke(
        app,
        [
            *("jobs", "submit", "--root", "r", "--model", "model", "--calibration", "data.jsonl"),
            *("--test", "data.jsonl", "--max-drop", ".5", "--minimise", "weight_bytes"),
            *("--workload", "b1:batch=1,length=8", "--workload", "b4:ids=4x8", "--fix", "x=w8"),
            *("--effort", "5", "--seconds", "60", "--ranges", "entropy", "--pairs", "apart"),
            *("--groups", str(groups), "--queue", "dev:h200", "--url", url, "--json"),
        ],
    )
    assert posted.exit_code == 0, posted.output
    job = service.store.get(json.loads(posted.stdout)["name"].removeprefix("jobs/"))
    asked = job.request
    assert job.queue == "dev:h200"
    assert asked["max_drop"] == 0.5
    assert asked["workloads"] == {"b1": {"batch": 1, "length": 8}, "b4": {"ids": [4, 8]}}
    assert asked["groups"][0]["metric"] == "sqnr_list"
    assert [asked[name] for name in ("effort", "seconds", "ranges", "pairs", "minimise")] == [
        5.0, 60.0, "entropy", "apart", "weight_bytes"
    ]  # fmt: skip


def test_a_grouping_that_cannot_be_read_is_told_before_anything_is_sent(tmp_path: Path) -> None:
    broken = tmp_path / "groups.toml"
    broken.write_text("[[group]")
    told = CliRunner().invoke(
        app,
        [
            *("jobs", "submit", "--root", "r", "--model", "m", "--calibration", "d.jsonl"),
            *("--budget", "weight_bytes=25%", "--groups", str(broken)),
        ],
    )
    assert (told.exit_code, "[[group]]" in told.stderr) == (2, True)
