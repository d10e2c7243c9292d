"""Laws of sessions: a key opens one, ends it, and no page of another site can use it."""

import re

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import update

from mpsearch.api.pages.places import SIGN_IN, SIGN_OUT
from mpsearch.api.service import Service
from mpsearch.api.session import COOKIE
from mpsearch.jobs.job import JobState
from mpsearch.jobs.keys import Key, KeyStore, Scope
from mpsearch.jobs.tables import KEYS
from tests.unit.api.pages.conftest import HTML, check_strict, wanted, with_result

SITE = {"origin": "https://service.example", "sec-fetch-site": "same-origin"}


def served(client: TestClient) -> Service:
    found = client.app.state.service  # type: ignore[attr-defined]  # an application of FastAPI has it
    assert isinstance(found, Service)
    return found


@pytest.fixture
def keys(guarded: TestClient) -> KeyStore:
    guarded.cookies.clear()
    return served(guarded).keys


def signed_in(client: TestClient, keys: KeyStore, *scopes: Scope, tenant: str = "a") -> Key:
    key, text = keys.create(tenant, scopes=scopes or (Scope.READ, Scope.WRITE))
    answer = client.post(SIGN_IN, data={"key": f" {text} "}, headers=SITE, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    return key


def test_a_stranger_is_asked_for_a_key_and_sees_nothing(
    guarded: TestClient, keys: KeyStore
) -> None:
    key, _ = keys.create("a", scopes=(Scope.READ,))
    job = with_result(served(guarded), actor=key.actor, path="secret-model")
    for path in ("/", f"/jobs/{job.id}", f"/jobs/{job.id}/chosen", f"/jobs/{job.id}/formats.css"):
        answer = guarded.get(path, headers=HTML)
        assert answer.status_code == 401
        assert "secret-model" not in answer.text
        assert f'name="next" value="{path}"' in answer.text
        check_strict(answer.text)


def test_a_key_opens_the_pages_and_is_not_in_the_cookie(
    guarded: TestClient, keys: KeyStore
) -> None:
    _, text = keys.create("a", scopes=(Scope.READ,))
    form = {"key": text, "next": "/?state=running"}
    answer = guarded.post(SIGN_IN, data=form, headers=SITE, follow_redirects=False)
    assert answer.headers["location"] == "/?state=running"
    cookie = answer.headers["set-cookie"]
    for flag in ("HttpOnly", "SameSite=strict", "Secure", "Path=/", "Max-Age=43200"):
        assert flag in cookie
    assert text.rpartition("_")[2] not in cookie
    assert guarded.get("/", headers=HTML).status_code == 200
    assert guarded.get("/v1/jobs").status_code == 200


@pytest.mark.parametrize("shown", ["", "mps_0123456789ab_" + "0" * 64, "<script>alert(1)</script>"])
def test_another_key_opens_nothing(guarded: TestClient, keys: KeyStore, shown: str) -> None:
    assert keys.pepper
    answer = guarded.post(SIGN_IN, data={"key": shown}, headers=SITE)
    assert answer.status_code == 401
    assert "not valid" in answer.text
    assert "set-cookie" not in answer.headers
    check_strict(answer.text)


@pytest.mark.parametrize(
    "place", ["//evil.example", "https://evil.example", "/\\evil.example", "x"]
)
def test_signing_in_leads_to_no_other_site(guarded: TestClient, keys: KeyStore, place: str) -> None:
    _, text = keys.create("a", scopes=(Scope.READ,))
    form = {"key": text, "next": place}
    answer = guarded.post(SIGN_IN, data=form, headers=SITE, follow_redirects=False)
    assert answer.headers["location"] == "/"


def test_a_session_ends_with_its_key(guarded: TestClient, keys: KeyStore) -> None:
    for end in ("revoked", "expires"):
        key = signed_in(guarded, keys)
        assert guarded.get("/").status_code == 200
        with keys.engine.begin() as connection:
            connection.execute(update(KEYS).where(KEYS.c.id == key.id).values({end: 1.0}))
        assert guarded.get("/").status_code == 401


def test_a_forged_session_opens_nothing(guarded: TestClient, keys: KeyStore) -> None:
    signed_in(guarded, keys)
    session = guarded.cookies[COOKIE]
    guarded.cookies.clear()
    for forged in (session[:-4] + "AAA=", "AAAA" + session[4:], "", "x", "\u00e4", session[:20]):
        headers = {"cookie": f"{COOKIE}={forged}".encode()}
        assert guarded.get("/", headers=headers).status_code == 401  # type: ignore[arg-type]  # bytes go as they are


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "https://service.example", "sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_no_other_site_can_act_in_a_session(
    guarded: TestClient, keys: KeyStore, headers: dict[str, str]
) -> None:
    key = signed_in(guarded, keys)
    store = served(guarded).store.of(key.actor)
    job = store.add(wanted())
    for path in (f"/jobs/{job.id}/cancel", f"/v1/jobs/{job.id}:cancel"):
        assert guarded.post(path, headers=headers).status_code == 403
    assert guarded.delete(f"/v1/jobs/{job.id}", headers=headers).status_code == 403
    assert store.get(job.id).state is JobState.QUEUED
    # Nobody is signed in, or out, by another site either.
    assert guarded.post(SIGN_OUT, headers=headers).status_code == 403
    assert guarded.post(SIGN_IN, data={"key": "x"}, headers=headers).status_code == 403


def test_a_page_of_ours_acts_and_a_link_from_elsewhere_is_followed(
    guarded: TestClient, keys: KeyStore
) -> None:
    key = signed_in(guarded, keys)
    store = served(guarded).store.of(key.actor)
    job = store.add(wanted())
    visit = {**HTML, "sec-fetch-site": "cross-site", "sec-fetch-dest": "document"}
    assert guarded.get(f"/jobs/{job.id}", headers=visit).status_code == 200
    assert guarded.get("/v1/jobs", headers={"sec-fetch-site": "cross-site"}).status_code == 403
    answer = guarded.post(f"/jobs/{job.id}/cancel", headers=SITE, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/jobs/{job.id}")
    assert store.get(job.id).state is JobState.CANCELLED
    answer = guarded.post(f"/jobs/{job.id}/delete", headers=SITE, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert guarded.get(f"/jobs/{job.id}", headers=HTML).status_code == 404


def test_a_session_may_do_what_its_key_may(guarded: TestClient, keys: KeyStore) -> None:
    key = signed_in(guarded, keys, Scope.READ)
    job = served(guarded).store.of(key.actor).add(wanted())
    assert guarded.get(f"/jobs/{job.id}", headers=HTML).status_code == 200
    answer = guarded.post(f"/jobs/{job.id}/cancel", headers={**SITE, **HTML})
    assert answer.status_code == 403
    assert re.search(r"<h1[^>]*>Forbidden", answer.text)
    signed_in(guarded, keys, Scope.METRICS)
    assert guarded.get("/", headers=HTML).status_code == 403


def test_what_is_another_tenants_does_not_exist(guarded: TestClient, keys: KeyStore) -> None:
    theirs, _ = keys.create("b", scopes=(Scope.READ,))
    job = with_result(served(guarded), actor=theirs.actor, path="their-model")
    signed_in(guarded, keys)
    assert "their-model" not in guarded.get("/").text
    ends = ("", "/chosen", "/progress", "/difference", "/plan.json", "/formats.css")
    for end in ends:
        answer = guarded.get(f"/jobs/{job.id}{end}", headers=HTML)
        assert answer.status_code == 404, end
        assert "is not known" in answer.text
    for end in ("cancel", "delete"):
        assert guarded.post(f"/jobs/{job.id}/{end}", headers=SITE).status_code == 404


def test_signing_out_forgets_the_session(guarded: TestClient, keys: KeyStore) -> None:
    signed_in(guarded, keys, Scope.READ)
    answer = guarded.post(SIGN_OUT, headers=SITE, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, SIGN_IN)
    assert COOKIE not in guarded.cookies
    assert guarded.get("/").status_code == 401
    assert guarded.get(SIGN_IN).status_code == 200


def test_open_loopback_asks_for_nothing(client: TestClient) -> None:
    answer = client.get(SIGN_IN, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert client.get("/").status_code == 200
    assert "Sign out" not in client.get("/").text


def test_a_form_that_is_too_long_is_refused(guarded: TestClient, keys: KeyStore) -> None:
    assert keys.pepper
    answer = guarded.post(SIGN_IN, data={"key": "x" * 10_000}, headers={**SITE, **HTML})
    assert answer.status_code == 422
    assert "<h1" in answer.text
