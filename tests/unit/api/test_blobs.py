"""Laws of uploads over HTTP."""

import hashlib
import os
from collections.abc import Iterator

from fastapi.testclient import TestClient

from mpsearch.api.service import Service

PROBLEM = "application/problem+json"


def path_of(content: bytes) -> str:
    return "/v1/blobs/sha256:" + hashlib.sha256(content).hexdigest()


def test_an_upload_is_kept_and_can_be_repeated(client: TestClient, service: Service) -> None:
    content = os.urandom(100_000)
    first, again = (client.put(path_of(content), content=content) for _ in range(2))
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json() == {"name": path_of(content)[10:], "size": 100_000}
    assert service.blobs.path(first.json()["name"]).read_bytes() == content


def test_a_digest_that_does_not_match_keeps_nothing(client: TestClient, service: Service) -> None:
    answer = client.put(path_of(b"right"), content=b"wrong")
    assert (answer.status_code, answer.headers["content-type"]) == (422, PROBLEM)
    assert "Nothing was kept" in answer.json()["detail"]
    assert not service.blobs.holds(path_of(b"right")[10:])


def test_an_upload_may_be_larger_than_a_request(client: TestClient, settings: object) -> None:
    content = bytes(settings.largest_json + 1)  # type: ignore[attr-defined]  # Settings
    assert client.put(path_of(content), content=content).status_code == 201


def test_an_upload_over_the_limit_is_413_as_a_problem(client: TestClient, service: Service) -> None:
    content = bytes(service.settings.largest_blob + 1)

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(content), 1000):
            yield content[start : start + 1000]

    for body in (content, pieces()):  # with a Content-Length, and without
        answer = client.put(path_of(content), content=body)
        assert (answer.status_code, answer.headers["content-type"]) == (413, PROBLEM)
    assert not service.blobs.holds(path_of(content)[10:])
    assert list(service.blobs.folder.glob(".incoming-*")) == []


def test_a_name_that_is_no_digest_is_refused(client: TestClient) -> None:
    for name in ("sha256:abc", "sha256:" + "G" * 64, "md5:" + "0" * 32, "sha256:..%2f..%2fx"):
        answer = client.put(f"/v1/blobs/{name}", content=b"x")
        assert answer.status_code in {404, 422}
        assert answer.headers["content-type"] == PROBLEM
