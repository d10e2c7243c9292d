"""kill -9 of the server in the middle of an upload: nothing half is ever seen."""

import hashlib
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx2
import numpy as np

from benchmarks.bar import Bar, judged
from benchmarks.service.api import Api, looks_right
from benchmarks.service.targets import TARGETS
from benchmarks.waiting import ending, waited_for

_PIECE: Final = 2**20
_SECONDS: Final = 60.0


def killed_uploads(*, small: bool) -> Iterator[Bar]:
    """Kill at shares of an upload, start again, and count what is seen or left of it."""
    megabytes = 20 if small else 500
    shares = (0.5,) if small else (0.02, 0.25, 0.5, 0.75, 0.99)
    content = np.random.default_rng(0).bytes(_PIECE) * megabytes
    place = f"/v1/blobs/sha256:{hashlib.sha256(content).hexdigest()}"
    half: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        looks_right(folder / "root")
        for share in shares:
            data = folder / f"data-{share}"
            with Api(data, root=folder / "root") as api:
                _half_sent(api, content, place=place, share=share)
            with Api(data, root=folder / "root") as api:
                half.append(_seen(api, place=place))
                _repeated(api, content, place=place)
    name = "half uploads seen after kill -9"
    yield judged(name, half, target=TARGETS[name], statistic="max", extra={"megabytes": megabytes})


def _half_sent(api: Api, content: bytes, *, place: str, share: float) -> None:
    """Send a share of an upload and wait until the server has written it; then it is killed."""
    host, _, port = urlsplit(api.url).netloc.partition(":")
    sent = int(share * len(content))
    lines = f"PUT {place} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {len(content)}\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=_SECONDS) as connection:
        connection.sendall(lines.encode() + content[:sent])
        waited_for(
            lambda: sum(path.stat().st_size for path in _incoming(api)) >= sent - 2 * _PIECE,
            f"a file with most of the {sent} bytes sent",
            seconds=_SECONDS,
            told=lambda: ending(api.data / "serve.log"),
        )
        api.kill()


def _seen(api: Api, *, place: str) -> float:
    """Return how many files there are of an upload that never ended."""
    with api.client() as client:
        told = client.head(place).status_code != httpx2.codes.NOT_FOUND
    deadline = time.monotonic() + _SECONDS
    while _incoming(api) and time.monotonic() < deadline:  # it is swept once the server is up
        time.sleep(0.02)
    kept = [path for path in (api.data / "blobs").rglob("*") if path.is_file()]
    return float(told + len(kept))


def _repeated(api: Api, content: bytes, *, place: str) -> None:
    with api.client() as client:
        client.put(place, content=content).raise_for_status()
        client.head(place).raise_for_status()


def _incoming(api: Api) -> list[Path]:
    return list((api.data / "blobs").glob(".incoming-*"))
