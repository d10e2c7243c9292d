"""Laws of posting, following and cancelling jobs; every bad input of the contract."""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from mpsearch.api.app import build_app
from mpsearch.api.service import Service
from mpsearch.api.settings import Settings
from mpsearch.core.progress import ProgressEvent
from mpsearch.jobs.job import JobState
from mpsearch.jobs.problem import internal_problem

PROBLEM = "application/problem+json"


def test_a_post_is_accepted_stored_and_enqueued(
    client: TestClient, service: Service, body: dict[str, Any]
) -> None:
    answer = client.post("/v1/jobs", json=body)
    assert answer.status_code == 202
    assert int(answer.headers["retry-after"]) >= 1
    job_id = answer.headers["location"].removeprefix("/v1/jobs/")
    assert answer.json()["name"] == f"jobs/{job_id}"
    assert service.store.get(job_id).state is JobState.QUEUED
    (workflow,) = service.queue.client.list_workflows(workflow_ids=[job_id])
    assert workflow.status == "ENQUEUED"
    assert client.get(answer.headers["location"]).json() == answer.json()


def test_a_job_goes_to_the_workers_that_it_names(
    client: TestClient, service: Service, body: dict[str, Any]
) -> None:
    for asked, queue in (({}, "dev:cpu"), ({"queue": "dev:h200"}, "dev:h200")):
        answer = client.post("/v1/jobs", json={**body, **asked})
        assert answer.json()["metadata"]["queue"] == queue
        job_id = answer.headers["location"].removeprefix("/v1/jobs/")
        (workflow,) = service.queue.client.list_workflows(workflow_ids=[job_id])
        assert workflow.queue_name == queue


@pytest.mark.parametrize("queue", ["gpu", "dev:", "dev:cpu:runners", "dev:GPU", "dev:" + "x" * 60])
def test_a_queue_that_no_worker_has_is_refused(
    client: TestClient, body: dict[str, Any], queue: str
) -> None:
    answer = client.post("/v1/jobs", json={**body, "queue": queue})
    assert answer.status_code == 422
    assert "queue" in answer.text


def test_a_job_that_runs_says_how_far_it_is(client: TestClient, service: Service) -> None:
    job = service.store.add({})
    service.store.start(job.id)
    event = ProgressEvent(phase="measure", done=1, total=4, seconds=2.0, seconds_left=6.0)
    service.store.report(job.id, event, step=1)
    answer = client.get(f"/v1/jobs/{job.id}")
    told = answer.json()
    assert int(answer.headers["retry-after"]) >= 1
    assert not told["done"]
    metadata = told["metadata"]
    assert (metadata["phase"], metadata["percent"], metadata["seconds_left"]) == (
        "measure",
        25.0,
        6.0,
    )
    assert "response" not in told


def test_a_job_that_succeeded_links_what_it_has(
    client: TestClient, finished: Callable[..., Any]
) -> None:
    answer = client.get(f"/v1/jobs/{finished().id}")
    told = answer.json()
    assert told["done"]
    assert "retry-after" not in answer.headers
    assert "model" not in told["response"]
    for link in told["response"].values():
        assert client.get(link).status_code == 200


def test_a_job_that_failed_says_why(client: TestClient, service: Service) -> None:
    job = service.store.add({})
    error = internal_problem("because").model_dump(exclude_none=True)
    service.store.finish(job.id, state=JobState.FAILED, error=error)
    told = client.get(f"/v1/jobs/{job.id}").json()
    assert told["done"]
    assert told["error"]["detail"] == "because"


def test_cancelling_is_told_and_repeatable(
    client: TestClient, service: Service, finished: Callable[..., Any]
) -> None:
    waiting, running = service.store.add({}), service.store.add({})
    service.store.start(running.id)
    for _ in range(2):
        for job, state in ((waiting, "cancelled"), (running, "cancelling")):
            answer = client.post(f"/v1/jobs/{job.id}:cancel")
            assert (answer.status_code, answer.json()["metadata"]["state"]) == (200, state)
    assert client.post(f"/v1/jobs/{finished().id}:cancel").status_code == 409


def test_what_a_killed_server_stored_is_enqueued_at_the_next_start(service: Service) -> None:
    job = service.store.add({})
    assert service.queue.client.list_workflows(workflow_ids=[job.id]) == []
    with TestClient(build_app(service.settings), base_url="http://127.0.0.1"):
        pass
    assert len(service.queue.client.list_workflows(workflow_ids=[job.id])) == 1


def refusal(client: TestClient, body: object, *, status: int) -> dict[str, Any]:
    """Post a request that has to be refused and return the problem."""
    answer = client.post("/v1/jobs", json=body)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == PROBLEM
    problem: dict[str, Any] = answer.json()
    assert problem["status"] == status
    assert {"type", "title", "detail"} <= set(problem)
    return problem


def test_malformed_json_is_refused(client: TestClient) -> None:
    answer = client.post(
        "/v1/jobs", content=b'{"model": ', headers={"content-type": "application/json"}
    )
    assert answer.status_code == 400
    assert answer.headers["content-type"] == PROBLEM
    assert answer.json()["type"].endswith(":malformed-json")


def test_unknown_fields_are_refused_by_name(client: TestClient, body: dict[str, Any]) -> None:
    problem = refusal(client, {**body, "budget": {}}, status=422)
    assert problem["errors"][0]["pointer"] == "/budget"


@pytest.mark.parametrize(
    ("budgets", "words"),
    [
        ({"weight_bytes": "25"}, "has no unit"),
        ({"latency": 4}, "has no unit"),
        ({"speed": "4ms"}, "is unknown"),
        ({"latency": "-4ms"}, "is not positive"),
    ],
)
def test_a_budget_that_cannot_be_right_is_refused(
    client: TestClient, body: dict[str, Any], budgets: dict[str, Any], words: str
) -> None:
    problem = refusal(client, {**body, "budgets": budgets}, status=422)
    assert problem["type"].endswith(":budget")
    assert words in problem["detail"]


@pytest.mark.parametrize(
    "change",
    [
        {"budgets": {}},
        {"formats": ["w99"]},
        {"fixed": {"encoder.0": "w99"}},
        {"solver": "guess"},
        {"runtime": "gpu"},
        {"task": "chess"},
        {"threads": 0},
        {"model": {"files": {"../config.json": "sha256:" + "0" * 64}}},
        {"model": {"files": {".config": "sha256:" + "0" * 64}}},
        {"model": {"root": "r", "path": "model\x00"}},
        {"model": "model"},
        {"calibration": {"blob": "sha256:zz", "format": "npz"}},
    ],
)
def test_what_would_fail_later_is_refused_at_once(
    client: TestClient, body: dict[str, Any], change: dict[str, Any]
) -> None:
    refusal(client, {**body, **change}, status=422)


@pytest.mark.parametrize(
    "path", ["../x", "/etc/passwd", "/nowhere/at/all", "nothing", "model/../.."]
)
@pytest.mark.parametrize("field", ["model", "calibration", "validation", "test"])
def test_outside_the_root_is_404_whether_it_exists_or_not(
    client: TestClient, body: dict[str, Any], field: str, path: str
) -> None:
    problem = refusal(client, {**body, field: {"root": "r", "path": path}}, status=404)
    assert f"Root 'r' holds no {path!r}." in problem["detail"]


def test_a_pickle_is_refused_unread(
    client: TestClient, body: dict[str, Any], upload: Callable[[bytes], str]
) -> None:
    files = {"config.json": upload(b"{}"), "pytorch_model.bin": "sha256:" + "0" * 64}
    problem = refusal(client, {**body, "model": {"files": files}}, status=422)
    assert "was left unread" in problem["detail"]
    files = {"config.json": upload(b"{}"), "model.safetensors": upload(b"\x80\x04K\x01.")}
    problem = refusal(client, {**body, "model": {"files": files}}, status=422)
    assert "a pickle" in problem["detail"]


def test_an_onnx_model_is_accepted(
    client: TestClient, body: dict[str, Any], upload: Callable[[bytes], str]
) -> None:
    files = {"net.onnx": upload(b"onnx")}
    assert client.post("/v1/jobs", json={**body, "model": {"files": files}}).status_code == 202


def test_a_body_over_the_limit_is_413_as_a_problem(
    client: TestClient, body: dict[str, Any], settings: Settings
) -> None:
    fixed = {f"layer.{place}": "w8" for place in range(settings.largest_json // 10)}
    problem = refusal(client, {**body, "fixed": fixed}, status=413)
    assert problem["type"].endswith("-large")


def test_jobs_that_are_not_there_are_404(client: TestClient) -> None:
    for job_id in ("01939f7e-7a5b-7c3d-9e1f-2a3b4c5d6e7f", "nothing", "..%2f..%2fetc"):
        for path in ("", "/plan", "/report", "/model", "/frontier"):
            answer = client.get(f"/v1/jobs/{job_id}{path}")
            assert (answer.status_code, answer.headers["content-type"]) == (404, PROBLEM)
