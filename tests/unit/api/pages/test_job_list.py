"""Laws of the list: every job of the tenant once, newest first, and names are only names."""

import re

from fastapi.testclient import TestClient

from mpsearch.api.service import Service
from mpsearch.core.progress import ProgressEvent
from mpsearch.jobs.job import JobState
from tests.unit.api.pages.conftest import HTML, check_strict, tags_of, wanted

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"


def listed(html: str) -> list[str]:
    return re.findall(r'<tr id="job-([0-9a-f-]{36})"', html)


def test_pages_follow_each_other_without_gap_or_repetition(
    client: TestClient, service: Service
) -> None:
    made = [service.store.add(wanted(f"model-{place}")).id for place in range(60)]
    found: list[str] = []
    address: str | None = "/?state=queued"
    while address is not None:
        html = client.get(address).text
        check_strict(html)
        found += listed(html)
        links = [
            tag.attributes["href"] for tag in tags_of(html) if tag.attributes.get("rel") == "next"
        ]
        address = links[0] if links else None
    assert found[: len(made)] == made[::-1]
    assert len(set(found)) == len(found)


def test_a_part_is_the_table_alone_and_asks_for_itself(
    client: TestClient, service: Service
) -> None:
    service.store.add(wanted())
    html = client.get("/?state=queued", headers={**HTML, "hx-request": "true"}).text
    assert html.startswith('<div id="jobs" hx-get="/?state=queued"')
    assert listed(html)


def test_progress_and_errors_are_told(client: TestClient, service: Service) -> None:
    running, failed = (service.store.add(wanted(name)) for name in ("runs", "breaks"))
    service.store.start(running.id)
    event = ProgressEvent(
        phase="measure_sensitivity", done=1, total=4, seconds=2.0, seconds_left=6.0
    )
    service.store.report(running.id, event, step=1)
    service.store.start(failed.id)
    error = {"type": "urn:x", "title": "No plan keeps the budgets", "detail": "Below <b>9</b>."}
    service.store.finish(failed.id, state=JobState.FAILED, error=error)
    html = client.get("/").text
    assert 'value="25.0"' in html
    assert "measure sensitivity, 25 % · 6.0 s left in this phase" in html
    assert "No plan keeps the budgets. Below &lt;b&gt;9&lt;/b&gt;." in html
    part = client.get(f"/jobs/{running.id}/progress").text
    assert part.startswith('<section id="progress"')
    page = client.get(f"/jobs/{running.id}").text
    assert f'data-events="/v1/jobs/{running.id}/events"' in page
    assert f'action="/jobs/{running.id}/cancel"' in page
    assert f'action="/jobs/{failed.id}/delete"' in client.get(f"/jobs/{failed.id}").text


def test_a_name_is_only_a_name(client: TestClient, service: Service) -> None:
    job = service.store.add({**wanted(HOSTILE), "budgets": {"<i>": "</script>"}})
    for path in ("/", f"/jobs/{job.id}"):
        html = client.get(path).text
        check_strict(html)
        assert "alert(1)" in html
        assert not [
            tag for tag in tags_of(html) if tag.tag in {"img", "i"} and "src" in tag.attributes
        ]


def test_uploads_and_requests_of_other_versions_have_a_name(
    client: TestClient, service: Service
) -> None:
    files = {"config.json": "sha256:0", "model.safetensors": "sha256:1"}
    service.store.add({"model": {"files": files}, "budgets": {"latency": "4ms"}})
    service.store.add({})
    service.store.add({"max_drop": 0.5, "minimise": "weight_bytes"})
    html = client.get("/").text
    assert "model.safetensors (uploaded)" in html
    assert "latency at most 4ms" in html
    assert "least weight bytes within a drop of 0.5" in html


def test_a_forged_token_is_a_readable_page(client: TestClient) -> None:
    answer = client.get("/?page_token=x", headers=HTML)
    assert answer.status_code == 422
    assert "The page token is not one of this server" in answer.text
    check_strict(answer.text)
