"""Laws of following: each event once and in order, versions that tell what is known."""

import json
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from mpsearch.api import hub
from mpsearch.api.service import Service
from mpsearch.core.progress import ProgressEvent
from mpsearch.jobs.job import Job, JobState

PROBLEM = "application/problem+json"


def step(done: int) -> ProgressEvent:
    return ProgressEvent(phase="measure", done=done, total=9, seconds=1.0)


def streamed(client: TestClient, job_id: str, **headers: str) -> list[dict[str, Any]]:
    """Return the events of a stream that ends."""
    answer = client.get(f"/v1/jobs/{job_id}/events", headers=headers)
    assert answer.headers["content-type"].startswith("text/event-stream")
    found = []
    for block in answer.text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if line[0] != ":")
        if fields:
            found.append({**json.loads(fields["data"]), "id": int(fields["id"]),
                          "event": fields["event"]})  # fmt: skip
    return found


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "_SECONDS_BETWEEN_LOOKS", 0.02)


def test_a_stream_brings_every_event_once_while_it_happens(
    client: TestClient, service: Service
) -> None:
    job = service.store.add({})

    def work() -> None:
        time.sleep(0.2)
        service.store.start(job.id)
        for done in range(1, 8):
            service.store.report(job.id, step(done), step=done)
            time.sleep(0.01)
        service.store.finish(job.id, state=JobState.SUCCEEDED)

    threads = [threading.Thread(target=work)]
    seen: list[list[dict[str, Any]]] = []
    threads += [
        threading.Thread(target=lambda: seen.append(streamed(client, job.id))) for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 5
    for events in seen:
        assert [event["id"] for event in events] == list(range(1, 11))
        assert [event["event"] for event in events] == ["state", "state"] + ["progress"] * 7 + [
            "state"
        ]
        assert [event["last"] for event in events] == [False] * 9 + [True]


def test_a_stream_goes_on_after_the_last_event_that_was_seen(
    client: TestClient, finished: Callable[..., Job]
) -> None:
    job = finished()
    assert [event["id"] for event in streamed(client, job.id)] == [1, 2, 3]
    again = streamed(client, job.id, **{"Last-Event-ID": "2"})
    assert [event["id"] for event in again] == [3]
    answer = client.get(f"/v1/jobs/{job.id}/events", headers={"Last-Event-ID": "3"})
    assert answer.status_code == 204
    wrong = client.get(f"/v1/jobs/{job.id}/events", headers={"Last-Event-ID": "x"})
    assert (wrong.status_code, wrong.headers["content-type"]) == (422, PROBLEM)


def test_a_stream_ends_when_its_job_is_deleted(client: TestClient, service: Service) -> None:
    job = service.store.add({})
    seen: list[Any] = []
    thread = threading.Thread(target=lambda: seen.append(streamed(client, job.id)))
    thread.start()
    time.sleep(0.2)
    service.store.finish(job.id, state=JobState.FAILED)
    service.store.delete(job.id)
    thread.join(20)
    assert not thread.is_alive()


def test_waiting_ends_with_news_or_with_its_time(client: TestClient, service: Service) -> None:
    job = service.store.add({})
    path = f"/v1/jobs/{job.id}/events"
    first = client.get(path, params={"wait": 5}).json()["events"]
    assert [(event["id"], event["data"]) for event in first] == [(1, {"state": "queued"})]
    start = time.monotonic()
    assert client.get(path, params={"wait": 1}, headers={"Last-Event-ID": "1"}).json() == {
        "events": []
    }
    assert 0.9 < time.monotonic() - start < 5
    threading.Timer(0.2, service.store.start, (job.id,)).start()
    start = time.monotonic()
    events = client.get(path, params={"wait": 30}, headers={"Last-Event-ID": "1"}).json()["events"]
    assert time.monotonic() - start < 10
    assert [event["id"] for event in events] == [2]


def test_streams_of_a_tenant_are_limited(service: Service) -> None:
    from mpsearch.errors import QuotaError

    full = hub.EventHub(service.events, most_of_a_tenant=1)
    with full.admitted("a"), full.admitted("b"), pytest.raises(QuotaError), full.admitted("a"):
        pass
    with full.admitted("a"):
        assert full._open == {"a": 1}


def test_an_answer_that_is_known_is_not_repeated(
    client: TestClient, service: Service, finished: Callable[..., Job]
) -> None:
    job = service.store.add({})
    path = f"/v1/jobs/{job.id}"
    etag = client.get(path).headers["etag"]
    known = client.get(path, headers={"if-none-match": etag})
    assert (known.status_code, known.content, known.headers["etag"]) == (304, b"", etag)
    service.store.start(job.id)
    assert client.get(path, headers={"if-none-match": etag}).status_code == 200
    done = finished()
    for name in ("plan", "report", "frontier", "verification"):
        path = f"/v1/jobs/{done.id}/{name}"
        etag = client.get(path).headers["etag"]
        assert client.get(path, headers={"if-none-match": etag}).status_code == 304
        assert client.get(path, headers={"if-none-match": '"other"'}).status_code == 200


def test_a_repeated_post_makes_one_job(client: TestClient, body: dict[str, Any]) -> None:
    headers = {"Idempotency-Key": "mine"}
    first, again = (client.post("/v1/jobs", json=body, headers=headers) for _ in range(2))
    assert first.json()["name"] == again.json()["name"]
    assert (first.status_code, again.status_code) == (202, 202)
    other = client.post("/v1/jobs", json={**body, "seed": 7}, headers=headers)
    assert (other.status_code, other.headers["content-type"]) == (422, PROBLEM)
    assert client.post("/v1/jobs", json=body).json()["name"] != first.json()["name"]


def test_pages_list_every_job_once(client: TestClient, service: Service) -> None:
    made = [service.store.add({}).id for _ in range(5)]
    seen: list[str] = []
    query: dict[str, Any] = {"limit": 2}
    while True:
        page = client.get("/v1/jobs", params=query).json()
        seen += [job["name"].removeprefix("jobs/") for job in page["jobs"]]
        service.store.add({})  # what comes meanwhile moves nothing
        if "next_page_token" not in page:
            break
        query["page_token"] = page["next_page_token"]
    assert len(seen) == len(set(seen))
    assert [name for name in seen if name in made] == made[::-1]


def test_a_page_holds_the_states_that_were_asked_for(client: TestClient, service: Service) -> None:
    for _ in range(3):
        service.store.finish(service.store.add({}).id, state=JobState.FAILED)
        service.store.add({})
    first = client.get("/v1/jobs", params={"state": "failed", "limit": 2}).json()
    second = client.get("/v1/jobs", params={"page_token": first["next_page_token"]}).json()
    jobs = first["jobs"] + second["jobs"]
    assert {job["metadata"]["state"] for job in jobs} == {"failed"}
    assert client.get("/v1/jobs", params={"state": "odd"}).status_code == 422


@pytest.mark.parametrize("change", ["x", "", "é", "AAAA"])
def test_a_tampered_page_token_is_refused(
    client: TestClient, service: Service, change: str
) -> None:
    for _ in range(2):
        service.store.add({})
    token = client.get("/v1/jobs", params={"limit": 1}).json()["next_page_token"]
    tampered = change + token[len(change) :] if change else token[:-8]
    answer = client.get("/v1/jobs", params={"page_token": tampered})
    assert (answer.status_code, answer.headers["content-type"]) == (422, PROBLEM)
    assert "List from the start" in answer.json()["detail"]


def test_only_what_has_ended_is_deleted(
    client: TestClient, service: Service, finished: Callable[..., Job]
) -> None:
    waiting, done = service.store.add({}), finished()
    assert client.delete(f"/v1/jobs/{waiting.id}").status_code == 409
    assert client.delete(f"/v1/jobs/{done.id}").status_code == 204
    assert not service.settings.data.job(done.id).exists()
    for answer in (client.get(f"/v1/jobs/{done.id}"), client.delete(f"/v1/jobs/{done.id}")):
        assert answer.status_code == 404


def test_a_request_is_tried_without_being_kept(
    client: TestClient, service: Service, body: dict[str, Any]
) -> None:
    before = service.store.page(limit=200)
    told = client.post("/v1/jobs:validate", json=body).json()
    assert told["seconds"] > 0
    assert told["memory_bytes"] > told["model_bytes"] > 0
    assert service.store.page(limit=200) == before
    wrong = {**body, "model": {"root": "r", "path": "gone"}}
    assert client.post("/v1/jobs:validate", json=wrong).status_code == 404
    wrong = {**body, "budgets": {"latency": 4}}
    assert client.post("/v1/jobs:validate", json=wrong).status_code == 422


def test_tables_are_answered_as_arrays(client: TestClient, finished: Callable[..., Job]) -> None:
    job = finished(layers=4)
    losses = client.get(f"/v1/jobs/{job.id}/sensitivity").json()
    (costs,) = client.get(f"/v1/jobs/{job.id}/costs").json()
    assert len(losses["loss"]) == len(costs["amount"]["weight_bytes"]) == 4
    assert losses["formats"] == costs["formats"]
