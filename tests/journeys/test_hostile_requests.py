"""Requests made to harm a real server: each is refused or cut off, and the server lives on."""

import hashlib
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import pytest

from benchmarks.service.api import Api, looks_right
from benchmarks.waiting import ending, waited_for

pytestmark = pytest.mark.slow

PROBLEM: Final = "application/problem+json"
PATIENCE: Final = 120.0
CONTENT: Final = b"whole"
PLACE: Final = f"/v1/blobs/sha256:{hashlib.sha256(CONTENT).hexdigest()}"


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    place = tmp_path_factory.mktemp("service")
    looks_right(place / "root")
    with Api(place / "data", root=place / "root") as running:
        yield running


def connected(api: Api) -> socket.socket:
    host, _, port = urlsplit(api.url).netloc.partition(":")
    return socket.create_connection((host, int(port)), timeout=PATIENCE)


def told(api: Api, request: bytes) -> bytes:
    """Return all that a server says to bytes, until it closes the connection."""
    deadline = time.monotonic() + PATIENCE
    with connected(api) as connection:
        connection.sendall(request)
        said = b""
        while piece := connection.recv(2**16):
            said += piece
            assert time.monotonic() < deadline, said[-300:]
        return said


def head(line: str, **headers: str) -> bytes:
    fields = {"host": "127.0.0.1", "connection": "close", **headers}
    lines = [line, *(f"{name.replace('_', '-')}: {value}" for name, value in fields.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def alive(api: Api) -> bool:
    with api.client() as client:
        return client.get("/healthz").status_code == 200


def unfinished(api: Api) -> list[Path]:
    return list((api.data / "blobs").glob(".incoming-*"))


def assert_nothing_unfinished(api: Api) -> None:
    """Half an upload goes as soon as the server hears that its sender has."""
    waited_for(
        lambda: not unfinished(api),
        "an end of half uploads",
        seconds=PATIENCE,
        told=lambda: f"There are {unfinished(api)}. {ending(api.data / 'serve.log')}",
    )


@pytest.mark.parametrize(
    "request_",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\nx: " + b"a" * 2**20 + b"\r\n\r\n",
        b"GET /" + b"a" * 2**20 + b" HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n" + b"x: y\r\n" * 2**16 + b"\r\n",
        head("POST /v1/jobs HTTP/1.1", content_length="-5"),
        head("PUT " + PLACE + " HTTP/1.1", transfer_encoding="chunked") + b"zz\r\nabc\r\n",
        head("GET /v1/jobs/a\x00b HTTP/1.1"),
        b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\nhost: evil.example\r\n\r\n",
    ],
)
def test_what_is_no_http_is_refused(api: Api, request_: bytes) -> None:
    try:
        said = told(api, request_)
    except ConnectionError:  # closed before we had sent it all
        said = b""
    assert_refused(said)
    assert alive(api)


def assert_refused(said: bytes) -> None:
    assert said == b"" or said.split()[1] in {b"400", b"413", b"414", b"431", b"422"}, said[:200]


@pytest.mark.parametrize(
    "path",
    [
        "/../../etc/passwd",
        "/v1/jobs/..%2f..%2f..%2fetc%2fpasswd",
        "/v1/jobs/%2e%2e/%2e%2e/secret",
        "/v1/jobs/%00",
        "/v1/blobs/sha256:..%2f..%2fsecret",
        "/v1/blobs/sha256:" + "0" * 63 + "%00",
        "//etc/passwd",
        "/v1/jobs/%ff%fe",
        "/v1/jobs?state=%00",
        "/v1/jobs?page_token=" + "A" * 5000,
    ],
)
def test_no_path_leads_out(api: Api, path: str) -> None:
    said = told(api, head(f"GET {path} HTTP/1.1"))
    assert said.split()[1] in {b"404", b"405", b"422"}, said[:300]
    assert PROBLEM.encode() in said
    assert b"root:" not in said


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 10**6,
        b'{"a":' * 200_000 + b"1" + b"}" * 200_000,
        b'{"model": ' + b"9" * 10**6 + b"}",
        b'{"budgets": {"weight_bytes": ' + b"1e" + b"9" * 1000 + b"}}",
        b'{"model": "\\ud800"}',
        b"\xff\xfe{}",
        b'{"model": {"root": "r", "path": "model\\u0000"}}',
        json.dumps({"model": {"root": "r", "path": "../../etc"}, "calibration": {"root": "r",
                    "path": "data.jsonl"}, "budgets": {"weight_bytes": "25%"}}).encode(),
        json.dumps({"fixed": {f"layer.{n}": "w8" for n in range(200_000)}}).encode(),
    ],
)  # fmt: skip
def test_json_made_to_harm_is_a_problem(api: Api, body: bytes) -> None:
    with api.client() as client:
        for path in ("/v1/jobs", "/v1/jobs:validate", "/v1/plans:solve"):
            headers = {"content-type": "application/json"}
            answer = client.post(path, content=body, headers=headers)
            assert answer.status_code in {400, 404, 413, 422}, (path, answer.text[:300])
            assert answer.headers["content-type"] == PROBLEM


def test_a_body_larger_than_the_server_takes_is_refused_before_it_is_read(api: Api) -> None:
    with connected(api) as connection:
        line = "POST /v1/jobs HTTP/1.1"
        connection.sendall(
            head(line, content_type="application/json", content_length=str(2**50)) + b"{"
        )
        assert connection.recv(2**16).split()[1] == b"413"
    assert alive(api)


def test_a_body_shorter_than_told_leaves_nothing(api: Api) -> None:
    with connected(api) as connection:
        connection.sendall(head(f"PUT {PLACE} HTTP/1.1", content_length="1000") + CONTENT)
    assert_nothing_unfinished(api)
    with api.client() as client:
        assert client.head(PLACE).status_code == 404


def test_a_body_longer_than_told_is_cut_where_it_said(api: Api) -> None:
    said = told(api, head(f"PUT {PLACE} HTTP/1.1", content_length="4") + CONTENT)
    assert said.split()[1] == b"422"
    with api.client() as client:
        assert client.head(PLACE).status_code == 404


def test_who_sends_slowly_is_cut_off_and_nobody_else_waits(api: Api) -> None:
    beginning = b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\n"
    upload = head(f"PUT {PLACE} HTTP/1.1", content_length="1000") + b"x"
    # Waited for as well: chunks count, and none comes.
    two_lengths = head("POST /v1/jobs HTTP/1.1", content_length="5", transfer_encoding="chunked")
    slow = [connected(api) for _ in range(300)]
    start = time.monotonic()
    for place, connection in enumerate(slow):
        connection.sendall(upload if place < 50 else beginning)
    assert alive(api)
    assert_refused(told(api, two_lengths))
    for connection in slow:
        while connection.recv(2**16):
            assert time.monotonic() - start < PATIENCE
        connection.close()
    assert time.monotonic() - start < PATIENCE
    assert_nothing_unfinished(api)
    assert alive(api)
