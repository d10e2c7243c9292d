"""A real API process without a worker, to be loaded."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final, final

import httpx2

from benchmarks.waiting import ending

_START_SECONDS: Final = 120.0
_STOP_SECONDS: Final = 60.0
_MEGABYTE: Final = 1e6


@final
class Api:
    """`mpsearch serve --workers 0` over a data folder, from `with` to its end."""

    def __init__(self, data: Path, *, root: Path) -> None:
        self.data = data
        self._root = root
        self.url = ""
        self.seconds_to_start = 0.0

    def __enter__(self) -> "Api":
        self.data.mkdir(parents=True, exist_ok=True)
        log = self.data / "serve.log"
        command = [sys.executable, "-m", "mpsearch", "serve", "--port=0", "--workers=0"]
        start = time.monotonic()
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                [*command, f"--data={self.data}", f"--root=r={self._root}"],
                stdout=file,
                stderr=file,
            )
        while time.monotonic() - start < _START_SECONDS and self._process.poll() is None:
            words = log.read_text().split()
            found = [word.rstrip(",") for word in words if word.startswith("http://")]
            if found and _answers(found[0]):
                self.url = found[0]
                self.seconds_to_start = time.monotonic() - start
                return self
            time.sleep(0.02)
        self.kill()
        raise RuntimeError(f"The server did not start. {ending(log)}")

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        """End the process at once, if it still runs."""
        self._process.kill()
        self._process.wait(timeout=_STOP_SECONDS)

    def memory(self) -> float:
        """Return its resident memory in megabytes."""
        return self._status("VmRSS:")

    def largest_memory(self) -> float:
        """Return the most resident memory that it has had, in megabytes."""
        return self._status("VmHWM:")

    def client(self) -> httpx2.Client:
        """Return a client with a connection of its own."""
        return httpx2.Client(base_url=self.url, timeout=120)

    def _status(self, name: str) -> float:
        lines = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        kilobytes = next(line.split()[1] for line in lines if line.startswith(name))
        return float(kilobytes) * 1024 / _MEGABYTE


def looks_right(folder: Path) -> dict[str, Any]:
    """Write what looks like a model and data from outside; return a request for it."""
    place = folder / "model"
    place.mkdir(parents=True)
    (place / "config.json").write_text("{}")
    header = b"{}      "
    (place / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    (folder / "data.jsonl").write_text('{"text": "a"}\n')
    return {
        "model": {"root": "r", "path": "model"},
        "calibration": {"root": "r", "path": "data.jsonl"},
        "budgets": {"weight_bytes": "25%"},
    }


def _answers(url: str) -> bool:
    """Return whether it is up: with keys, it asks for one."""
    try:
        found = httpx2.get(f"{url}/healthz", timeout=10).status_code
    except httpx2.HTTPError:
        return False
    return found in {httpx2.codes.OK, httpx2.codes.UNAUTHORIZED}
