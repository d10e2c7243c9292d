"""A real `mpsearch serve` to measure and to kill, a small model for it, and jobs."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, final

import httpx2
import numpy as np

from benchmarks.waiting import PATIENCE_SECONDS, Found, ending, waited_for

_START_SECONDS: Final = 120.0
# Many times what a job of a small model takes, and less than a test may.
_JOB_SECONDS: Final = 300.0
_STOP_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 0.1


@final
class Server:
    """One data folder under `mpsearch serve`, which can be killed and started again.

    `database` is the URL of a Postgres; without it the data folder has one of SQLite. With
    `shard_seconds` its one worker divides what takes twice as long.
    """

    def __init__(
        self,
        data: Path,
        *,
        root: Path,
        database: str | None = None,
        shard_seconds: float | None = None,
    ) -> None:
        self.data = data
        self._options = [] if shard_seconds is None else [f"--shard-seconds={shard_seconds}"]
        self._environment = {} if database is None else {"MPS_DATABASE_URL": database}
        self._root = root
        self._log: IO[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""
        self.client = httpx2.Client()

    def __enter__(self) -> "Server":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start serving on a free port and wait for the first answer."""
        self.data.mkdir(parents=True, exist_ok=True)
        path = self.data / "serve.log"
        offset = path.stat().st_size if path.exists() else 0
        self._log = path.open("ab")
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "mpsearch",
                "serve",
                "--port=0",
                f"--data={self.data}",
                f"--root=r={self._root}",
                *self._options,
            ],
            stdout=self._log,
            stderr=self._log,
            stdin=subprocess.DEVNULL,
            env=os.environ | self._environment,
        )
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            words = path.read_bytes()[offset:].decode(errors="replace").split()
            found = [word.rstrip(",") for word in words if word.startswith("http://")]
            if found and _answers(found[0]):
                self.url = found[0]
                # One for all requests: making one costs more than most answers.
                self.client = httpx2.Client(base_url=self.url, timeout=60)
                return
            time.sleep(_LOOK_SECONDS)
        self.kill()
        raise RuntimeError(f"The server did not start. {self.told()}")

    def stop(self) -> None:
        """End it as Ctrl-C does; its worker and runner end with it.

        Raises:
            TimeoutError: It does not end; then it is killed.
        """
        if self._process is None:
            return
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(timeout=_STOP_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise TimeoutError(f"The server does not end. {self.told()}") from error
        finally:
            self.kill()

    def kill(self) -> None:
        """Kill the API process and wait until it is gone."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(timeout=_STOP_SECONDS)
        assert self._log is not None
        self._log.close()

    def worker(self) -> int | None:
        """Return the process id of the worker, None while there is none."""
        assert self._process is not None
        return _child(self._process.pid, "mpsearch.worker")

    def runner(self) -> int | None:
        """Return the process id of the runner, None while there is none."""
        worker = self.worker()
        return None if worker is None else _child(worker, "mpsearch.worker.runner")

    def post(self, body: Mapping[str, Any]) -> str:
        """Post a job and return its id."""
        answer = self.client.post("/v1/jobs", json=dict(body))
        answer.raise_for_status()
        return answer.headers["location"].removeprefix("/v1/jobs/")

    def job(self, job_id: str) -> dict[str, Any]:
        """Return a job as it stands."""
        answer = self.client.get(f"/v1/jobs/{job_id}")
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    def ended(self, job_id: str) -> dict[str, Any]:
        """Wait for the end of a job and return it.

        Raises:
            TimeoutError: It does not end; says how it stands.
        """
        return waited_for(
            lambda: job if (job := self.job(job_id))["done"] else None,
            f"the end of job {job_id}",
            seconds=_JOB_SECONDS,
            told=lambda: f"It stands at {self.job(job_id)}. {self.told()}",
        )

    def waited_for(
        self,
        look: Callable[[], Found | None],
        awaited: str,
        *,
        seconds: float = PATIENCE_SECONDS,
    ) -> Found:
        """Return what `look` finds as soon as that is true.

        Raises:
            TimeoutError: It took longer; says how the log ends.
        """
        return waited_for(look, awaited, seconds=seconds, told=self.told)

    def wait_for_workers(self, count: int) -> None:
        """Wait until so many workers have told of themselves."""
        self.waited_for(
            lambda: self.client.get("/readyz").json()["workers"] >= count, f"worker {count}"
        )

    def wait_for_a_phase(self, job_id: str) -> None:
        """Wait until the runner of a job has told of its first step."""
        self.waited_for(
            lambda: self.job(job_id)["metadata"].get("phase"), f"a first step of job {job_id}"
        )

    def told(self) -> str:
        """Return how the log of server and worker ends."""
        return ending(self.data / "serve.log")


@final
@dataclass(frozen=True, kw_only=True)
class SmallModel:
    """A folder with a transformer of some blocks and samples for it."""

    folder: Path
    blocks: int = 2

    def write(self) -> "SmallModel":
        """Write model and samples, the same on every run."""
        import torch
        from transformers import BertConfig, BertModel

        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=64,
            hidden_size=32,
            num_hidden_layers=self.blocks,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=32,
        )
        place = self.folder / "model"
        BertModel(config, add_pooling_layer=False).save_pretrained(place)
        ids = np.random.default_rng(0).integers(1, 64, (48, 12))
        np.savez(self.folder / "samples.npz", input_ids=ids, attention_mask=np.ones_like(ids))
        return self

    def request(self, *, runtime: str = "simulation") -> dict[str, Any]:
        """Return a job that searches a plan for it."""
        return {
            "model": {"root": "r", "path": "model"},
            "calibration": {"root": "r", "path": "samples.npz"},
            "budgets": {"weight_bytes": "30%"},
            "runtime": runtime,
            "task": "embedding",
        }


def _answers(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/healthz", timeout=10).status_code == httpx2.codes.OK
    except httpx2.HTTPError:
        return False


def _child(parent: int, module: str) -> int | None:
    """Return the child of a process that runs a module, by /proc."""
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            words = Path(entry.path, "cmdline").read_bytes().decode().split("\0")
            stat = Path(entry.path, "stat").read_text()
        except OSError:  # it ended while we looked
            continue
        after_name = stat.rpartition(")")[2].split()
        if int(after_name[1]) == parent and after_name[0] != "Z" and module in words:
            return int(entry.name)
    return None
