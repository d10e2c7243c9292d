"""Laws of the gate: deny by default, tenants apart, nobody acts in another's name."""

import hashlib
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from sqlalchemy import update

from mpsearch.api.app import build_app
from mpsearch.api.exposure import check_exposure
from mpsearch.api.gate import scope_needed
from mpsearch.api.pace import Pace
from mpsearch.api.pages.places import is_open
from mpsearch.api.pages.routers import PAGES
from mpsearch.api.service import Service
from mpsearch.api.settings import Limits, Settings
from mpsearch.errors import UsageError
from mpsearch.jobs.data_folder import DataFolder
from mpsearch.jobs.keys import Key, KeyStore, Scope, pepper_of
from mpsearch.jobs.tables import KEYS

PROBLEM = "application/problem+json"
NOBODY = "01939f7e-7a5b-7c3d-9e1f-2a3b4c5d6e7f"
# All that strangers reach: the form to sign in, and the files that pages are made of.
OPEN = {"/sign-in", "/sign-out", "/static/{version}/{name}"}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Iterator[TestClient]:
    """Return a client of a server that has keys and answers the world."""
    settings = Settings(
        data=DataFolder(path=tmp_path_factory.mktemp("guarded")),
        host="0.0.0.0",  # noqa: S104  # what is tested; nothing listens
        roots={"r": root},
        limits=Limits(active_jobs=3, blob_bytes=1000, requests_per_second=1e6, burst=10**6,
                      failures_per_second=1e6, failures_burst=10**6),
    )  # fmt: skip
    with TestClient(
        build_app(settings), base_url="http://service.example", raise_server_exceptions=False
    ) as running:
        yield running


@pytest.fixture(scope="module")
def keys(guarded: TestClient) -> KeyStore:
    return served(guarded).keys


def served(client: TestClient) -> Service:
    application: Any = client.app
    assert isinstance(application.state.service, Service)
    return application.state.service


def made(keys: KeyStore, tenant: str, *scopes: Scope) -> tuple[Key, dict[str, str]]:
    key, text = keys.create(tenant, scopes=scopes or (Scope.READ, Scope.WRITE))
    return key, {"authorization": f"Bearer {text}"}


def operations(client: TestClient) -> list[tuple[str, str]]:
    """Return every (method, path) that is served, those that no document names too."""
    application: Any = client.app
    found = [("GET", "/openapi.json"), ("GET", "/docs"), ("GET", "/nowhere"), ("PUT", "/")]
    for path, methods in application.openapi()["paths"].items():
        filled = path.replace("{job_id}", NOBODY).replace("{digest}", "0" * 64)
        found += [(method.upper(), filled) for method in methods]
    assert len(found) > 15
    pages = [route for router in PAGES for route in router.routes if isinstance(route, APIRoute)]
    for page in pages:
        filled = page.path.replace("{job_id:uuid}", NOBODY)
        found += [(method, filled) for method in page.methods or () if not is_open(page.path)]
    assert {page.path for page in pages if is_open(page.path)} == OPEN
    return found


@pytest.mark.parametrize(
    "shown",
    [None, "", "Bearer", "Bearer x", "Basic eDp4", "Bearer mps_0123456789ab_" + "0" * 64],
)
def test_no_route_answers_without_a_valid_key(guarded: TestClient, shown: str | None) -> None:
    for method, path in operations(guarded):
        headers = {} if shown is None else {"authorization": shown}
        answer = guarded.request(method, path, headers=headers)
        assert answer.status_code == 401, (method, path)
        if method != "HEAD":
            assert answer.headers["content-type"] == PROBLEM
        assert answer.headers["www-authenticate"] == "Bearer"


def test_a_key_opens_what_its_scopes_say_and_no_more(guarded: TestClient, keys: KeyStore) -> None:
    by_scope = {scope: made(keys, "a", scope)[1] for scope in Scope}
    for method, path in operations(guarded):
        needed = scope_needed(method, path)
        for scope, headers in by_scope.items():
            answer = guarded.request(method, path, headers=headers)
            assert (answer.status_code in {401, 403}) == (scope is not needed), (method, path)


def test_changing_needs_the_scope_to_write() -> None:
    assert scope_needed("POST", "/v1/jobs") is Scope.WRITE
    assert scope_needed("DELETE", "/v1/jobs/x") is Scope.WRITE
    assert scope_needed("GET", "/v1/jobs") is Scope.READ
    assert scope_needed("POST", "/v1/plans:solve") is Scope.READ
    assert scope_needed("GET", "/metrics") is Scope.METRICS


def test_a_key_ends_when_it_is_revoked_or_expires(guarded: TestClient, keys: KeyStore) -> None:
    revoked, revoked_headers = made(keys, "a")
    expired, expired_headers = made(keys, "a")
    for headers in (revoked_headers, expired_headers):
        assert guarded.get("/v1/devices", headers=headers).status_code == 200
    keys.revoke(revoked.id)
    with keys.engine.begin() as connection:
        connection.execute(
            update(KEYS).where(KEYS.c.id == expired.id).values(expires=time.time() - 1)
        )
    for headers in (revoked_headers, expired_headers):
        assert guarded.get("/v1/devices", headers=headers).status_code == 401


def test_what_is_another_tenants_does_not_exist(
    guarded: TestClient, keys: KeyStore, body: dict[str, Any]
) -> None:
    (_, ours), (_, theirs) = (made(keys, name) for name in ("a", "b"))
    place = guarded.post("/v1/jobs", json=body, headers=ours).headers["location"]
    content = b"secret of a"
    digest = hashlib.sha256(content).hexdigest()
    blob = f"/v1/blobs/sha256:{digest}"
    assert guarded.put(blob, content=content, headers=ours).status_code == 201
    assert guarded.head(blob, headers=ours).status_code == 200
    tries = [("GET", place), ("POST", f"{place}:cancel"), ("DELETE", place), ("HEAD", blob)]
    tries += [("GET", f"{place}/{name}") for name in ("plan", "report", "events", "sensitivity")]
    for method, path in tries:
        foreign = guarded.request(method, path, headers=theirs)
        nowhere = place.removeprefix("/v1/jobs/")
        absent = guarded.request(method, path.replace(nowhere, NOBODY), headers=theirs)
        assert foreign.status_code == 404, (method, path)
        if method != "HEAD":
            assert foreign.text.replace(nowhere, "") == absent.text.replace(NOBODY, "")
    using = {**body, "calibration": {"blob": f"sha256:{digest}", "format": "jsonl"}}
    assert guarded.post("/v1/jobs", json=using, headers=theirs).status_code == 404
    solve = {"job": nowhere, "budgets": {"weight_bytes": "20%"}}
    assert guarded.post("/v1/plans:solve", json=solve, headers=theirs).status_code == 404
    # Who has the file may say so: the answer does not tell that somebody else has it.
    assert guarded.put(blob, content=content, headers=theirs).status_code == 201


def test_quotas_are_per_tenant_and_told(
    guarded: TestClient, keys: KeyStore, body: dict[str, Any]
) -> None:
    (_, ours), (_, theirs) = (made(keys, name) for name in ("c", "d"))
    statuses = [guarded.post("/v1/jobs", json=body, headers=ours).status_code for _ in range(4)]
    assert statuses == [202, 202, 202, 429]
    assert guarded.post("/v1/jobs", json=body, headers=theirs).status_code == 202
    for size, status in ((900, 201), (900, 200), (99, 201), (2, 429), (5000, 429)):
        content = b"x" * size
        name = hashlib.sha256(content).hexdigest()
        answer = guarded.put(f"/v1/blobs/sha256:{name}", content=content, headers=ours)
        assert answer.status_code == status, size


def test_secrets_are_kept_as_an_hmac_only(keys: KeyStore) -> None:
    key, text = keys.create("a", scopes=(Scope.READ,))
    secret = text.rpartition("_")[2]
    with keys.engine.connect() as connection:
        rows = connection.execute(KEYS.select().where(KEYS.c.id == key.id)).all()
    assert secret not in str(rows)
    assert keys.find(text) == key
    assert keys.find(text[:-1] + ("0" if text[-1] != "0" else "1")) is None
    assert replace(keys, pepper=b"of another server").find(text) is None


def test_the_pepper_is_for_its_owner_alone(tmp_path: Path) -> None:
    assert pepper_of(tmp_path) == pepper_of(tmp_path)
    assert (tmp_path / "secret").stat().st_mode & 0o077 == 0
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]


@pytest.mark.parametrize("tenant", ["", "A", "a b", "../x", "x" * 64])
def test_a_malformed_tenant_is_refused(keys: KeyStore, tenant: str) -> None:
    with pytest.raises(UsageError, match="cannot be made"):
        keys.create(tenant, scopes=(Scope.READ,))


def test_loopback_is_open_until_there_is_a_key(settings: Settings, tmp_path: Path) -> None:
    local = replace(settings, data=DataFolder(path=tmp_path))
    with TestClient(build_app(local), base_url="http://127.0.0.1") as client:
        assert client.get("/v1/devices").status_code == 200
        key, headers = made(served(client).keys, "a")
        assert client.get("/v1/devices").status_code == 401
        assert client.get("/v1/devices", headers=headers).status_code == 200
        served(client).keys.revoke(key.id)
        assert client.get("/v1/devices").status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_a_page_of_another_site_cannot_act(
    client: TestClient, service: Service, headers: dict[str, str]
) -> None:
    job = service.store.add({})
    answer = client.post(f"/v1/jobs/{job.id}:cancel", headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (403, PROBLEM)
    assert service.store.get(job.id) == job


def test_a_page_of_this_server_may_act(client: TestClient, service: Service) -> None:
    job = service.store.add({})
    headers = {"origin": "http://127.0.0.1", "sec-fetch-site": "same-origin"}
    assert client.post(f"/v1/jobs/{job.id}:cancel", headers=headers).status_code == 200


def test_who_asks_too_often_waits(settings: Settings, tmp_path: Path) -> None:
    limits = Limits(requests_per_second=0.01, burst=3, failures_per_second=0.01, failures_burst=2)
    hasty = replace(settings, data=DataFolder(path=tmp_path), limits=limits)
    with TestClient(build_app(hasty), base_url="http://127.0.0.1") as client:
        keys = served(client).keys
        (_, one), (_, two) = made(keys, "a"), made(keys, "b")
        asked = [client.get("/v1/devices", headers=one) for _ in range(4)]
        assert [answer.status_code for answer in asked] == [200, 200, 200, 429]
        assert int(asked[-1].headers["retry-after"]) >= 1
        assert client.get("/v1/devices", headers=two).status_code == 200
        failed = [client.get("/v1/devices", headers={"authorization": "Bearer x"}) for _ in "123"]
        assert [answer.status_code for answer in failed] == [401, 401, 429]


def test_a_bucket_fills_at_its_rate() -> None:
    now = [0.0]
    pace = Pace(per_second=2.0, burst=2, clock=lambda: now[0])
    for _ in range(2):
        assert pace.wait("a") == 0
        pace.take("a")
    assert pace.wait("a") == pytest.approx(0.5)
    assert pace.wait("b") == 0
    now[0] = 0.5
    assert pace.wait("a") == 0


def test_beyond_loopback_needs_a_key_and_a_sandbox(settings: Settings, tmp_path: Path) -> None:
    world = replace(settings, data=DataFolder(path=tmp_path), host="10.0.0.1")
    assert not world.is_local
    with pytest.raises(UsageError, match="no layer of the sandbox"):
        check_exposure(world, layers=())
    with pytest.raises(UsageError, match="there are no keys"):
        check_exposure(world, layers=("seccomp",))
    with TestClient(build_app(replace(world, host="127.0.0.1"))) as client:
        made(served(client).keys, "a")
    check_exposure(world, layers=("seccomp",))
