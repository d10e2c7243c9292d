"""Laws of the form: what it holds becomes a job, what is wrong is told beside what was typed."""

import pytest
from fastapi.testclient import TestClient

from tests.unit.api.pages.conftest import HTML, check_strict

SITE = {**HTML, "sec-fetch-site": "same-origin"}
FILLED = {
    "root": "r",
    "model": "model",
    "calibration": "data.jsonl",
    "weight_bytes": "25%",
    "latency": " 4ms ",
    "formats": "w8, w4",
    "task": "embedding",
    "runtime": "simulation",
    "queue": "dev:h200",
}


def test_the_form_is_strict_and_names_the_roots(client: TestClient) -> None:
    answer = client.get("/new", headers=HTML)
    assert answer.status_code == 200
    assert "<option>r</option>" in answer.text
    check_strict(answer.text)
    for name in FILLED:
        assert f'name="{name}"' in answer.text


def test_a_filled_in_form_is_a_job(client: TestClient) -> None:
    answer = client.post("/new", data=FILLED, headers=SITE, follow_redirects=False)
    assert answer.status_code == 303, answer.text
    job_id = answer.headers["location"].removeprefix("/jobs/")
    service = client.app.state.service  # type: ignore[attr-defined]  # an application of FastAPI has it
    assert service.store.get(job_id).queue == "dev:h200"
    request = service.store.get(job_id).request
    assert request["model"] == {"root": "r", "path": "model"}
    assert request["calibration"] == {"root": "r", "path": "data.jsonl"}
    assert request["budgets"] == {"weight_bytes": "25%", "latency": "4ms"}
    assert list(request["formats"]) == ["w8", "w4"]
    assert (request["task"], request["runtime"]) == ("embedding", "simulation")


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"model": "<b>gone"}, "holds no"),
        ({"weight_bytes": "much"}, "much"),
        ({"weight_bytes": "", "latency": ""}, "Neither budgets"),
        ({"formats": "w99x"}, "w99x"),
        ({"task": "chess"}, "task"),
        ({"queue": "gpu"}, "queue"),
        ({"model_files": "{"}, "Expecting"),
        ({"calibration_blob": "sha256:1", "calibration_format": "npz"}, "calibration.blob"),
    ],
)
def test_what_is_wrong_is_told_and_what_was_typed_is_kept(
    client: TestClient, wrong: dict[str, str], told: str
) -> None:
    answer = client.post("/new", data={**FILLED, **wrong}, headers=SITE, follow_redirects=False)
    assert answer.status_code == 422
    assert told in answer.text
    assert 'role="alert"' in answer.text
    assert 'value="data.jsonl"' in answer.text
    assert "<b>" not in answer.text
    check_strict(answer.text)


def test_another_site_cannot_post_it(client: TestClient) -> None:
    foreign = {**HTML, "origin": "https://evil.example", "sec-fetch-site": "cross-site"}
    answer = client.post("/new", data=FILLED, headers=foreign, follow_redirects=False)
    assert answer.status_code == 403


def test_a_form_that_is_too_long_is_refused(client: TestClient) -> None:
    answer = client.post("/new", data={"model": "x" * 70_000}, headers=SITE)
    assert answer.status_code in {400, 413, 422}
    assert "longer than" in answer.text
