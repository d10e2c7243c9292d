"""Laws of errors: people read a page, programs a problem, with the same status."""

import pytest
from fastapi.testclient import TestClient

from tests.unit.api.pages.conftest import HTML, check_strict

NOBODY = "01939f7e-7a5b-7c3d-9e1f-2a3b4c5d6e7f"
PROBLEM = "application/problem+json"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", f"/jobs/{NOBODY}", 404),
        ("GET", "/jobs/none", 404),
        ("GET", "/static/x/none.js", 404),
        ("GET", "/?state=nowhere", 422),
        ("GET", f"/jobs/{NOBODY}/chosen?limit=-1", 422),
        ("POST", "/", 405),
        ("POST", f"/jobs/{NOBODY}/cancel", 404),
    ],
)
def test_an_error_is_a_page_for_people_and_a_problem_for_programs(
    client: TestClient, method: str, path: str, status: int
) -> None:
    page = client.request(method, path, headers=HTML)
    told = client.request(method, path)
    assert (page.status_code, told.status_code) == (status, status)
    assert told.headers["content-type"] == PROBLEM
    assert page.headers["content-type"].startswith("text/html")
    assert f'<h1 id="title">{told.json()["title"]}</h1>' in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    check_strict(page.text)


def test_a_page_that_takes_no_post_says_what_it_takes(client: TestClient) -> None:
    assert client.post("/", headers=HTML).headers["allow"] == "GET"


def test_a_script_gets_a_part(client: TestClient) -> None:
    answer = client.get(f"/jobs/{NOBODY}/chosen", headers={**HTML, "hx-request": "true"})
    assert answer.status_code == 404
    assert answer.text.startswith('<div class="notice bad" role="alert">')


def test_a_script_whose_session_has_ended_asks_for_the_whole_page(guarded: TestClient) -> None:
    answer = guarded.get("/", headers={**HTML, "hx-request": "true"})
    assert (answer.status_code, answer.headers["hx-refresh"]) == (401, "true")
    assert answer.headers["www-authenticate"] == "Bearer"


def test_the_api_stays_as_it_is(client: TestClient) -> None:
    answer = client.get(f"/v1/jobs/{NOBODY}", headers=HTML)
    assert (answer.status_code, answer.headers["content-type"]) == (404, PROBLEM)


def test_pages_are_not_in_the_document(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert all(path.startswith(("/v1/", "/healthz", "/readyz", "/metrics")) for path in paths)
