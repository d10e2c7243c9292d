"""A disk that fills up under a running service: nothing is lost, and it goes on when there is room.

A real file system of 64 MB holds everything: data, databases, and the log of the server.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx2

from benchmarks.bar import Bar, judged
from benchmarks.rest.server import Server, SmallModel
from benchmarks.service.targets import TARGETS

_SIZE: Final = "64m"
_BLOCK: Final = 2**20
# Of the seconds that a job takes where nothing is in its way: when the disk is full.
_MOMENTS: Final = (0.0, 0.3, 0.6, 0.9)
_SMALL: Final = (0.6,)
# How long it stays so.
_FULL_SECONDS: Final = 20.0
_MOUNT_SECONDS: Final = 60.0
_BLOB: Final = f"/v1/blobs/sha256:{'0' * 64}"
_LOST: Final = "jobs lost on a full disk"
_WRONG: Final = "tables that differ after a full disk"
_UNTOLD: Final = "answers on a full disk that do not say so"


def full_disk(*, small: bool) -> Iterator[Bar]:
    """Fill the disk at some moments of a job, make room later, and look what became of it."""
    if os.geteuid() != 0:
        print("Mounting a small disk needs root: its bars are SKIPPED.", file=sys.stderr)
        return
    lost: list[float] = []
    wrong: list[float] = []
    untold: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "root"
        body = {**SmallModel(folder=root).write().request(), "runtime": "simulation"}
        with _disk(Path(name) / "data") as data, Server(data, root=root) as server:
            start = time.monotonic()
            expected = _table(server, server.post(body))
            seconds = time.monotonic() - start
            for moment in _SMALL if small else _MOMENTS:
                shutil.rmtree(data / "cache")
                job_id = server.post(body)
                time.sleep(moment * seconds)
                with _filled(data):
                    untold.append(_answers_that_hide_it(server, body))
                    time.sleep(_FULL_SECONDS)
                ended = server.ended(job_id)
                told = ended.get("error", {}).get("type", "").endswith(":disk-full")
                done = ended["metadata"]["state"] == "succeeded"
                lost.append(float(not (done or told)))
                wrong.append(float(_table(server, server.post(body)) != expected))
    extra = {"moments": len(lost)}
    for bar, found in ((_LOST, lost), (_WRONG, wrong), (_UNTOLD, untold)):
        yield judged(bar, found, target=TARGETS[bar], statistic="max", extra=extra)


@contextmanager
def _disk(place: Path) -> Iterator[Path]:
    place.mkdir()
    options = ["mount", "-t", "tmpfs", "-o", f"size={_SIZE}", "tmpfs"]
    subprocess.run([*options, str(place)], check=True, timeout=_MOUNT_SECONDS)
    try:
        yield place
    finally:
        options = ["umount", "--lazy"]
        subprocess.run([*options, str(place)], check=True, timeout=_MOUNT_SECONDS)


@contextmanager
def _filled(data: Path) -> Iterator[None]:
    """Leave no byte free while the context lasts."""
    filler = data / "filler"
    with filler.open("wb", buffering=0) as file:
        size = _BLOCK
        while size:
            try:
                file.write(bytes(size))
            except OSError:
                size //= 2
    yield
    filler.unlink()


def _answers_that_hide_it(server: Server, body: dict[str, Any]) -> float:
    """Return how many of three answers are not as a full disk should be told."""
    put = server.client.put(_BLOB, content=bytes(_BLOCK)).status_code
    post = server.client.post("/v1/jobs", json=body).status_code
    alive = server.client.get("/healthz").status_code
    full = httpx2.codes.INSUFFICIENT_STORAGE
    return float((put != full) + (post != full) + (alive != httpx2.codes.OK))


def _table(server: Server, job_id: str) -> bytes:
    """Return a job's table of sensitivities as it was stored, nothing where it failed."""
    server.ended(job_id)
    answer = server.client.get(f"/v1/jobs/{job_id}/sensitivity")
    return answer.content if answer.is_success else b""
