"""kill -9 of each kind of process at random moments: nothing is lost, nothing changes."""

import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, final, get_args

from benchmarks.bar import Bar, judged
from benchmarks.rest.server import Server, SmallModel
from benchmarks.service.postgres import Postgres
from benchmarks.service.targets import TARGETS
from mpsearch.core.files import load_table
from mpsearch.core.tables import SensitivityTable

Kind = Literal["api", "worker", "runner"]
_KILLS: Final = 20
_FEW: Final = 5
_SEED: Final = 7
# So short that whatever can be divided is.
_SHARD_SECONDS: Final = 1e-6
_LOOK_SECONDS: Final = 0.02
_SECONDS_UNTIL_A_RUNNER: Final = 120.0
# A job that ended before its moment came proves nothing, so another takes its place, so often.
_MOST_TRIES: Final = 5
# The kind of value that the cache keeps per layer, format and batch.
_MEASURED: Final = "output_changes"


def kills(*, small: bool) -> Iterator[Bar]:
    """Kill each kind of process so often, each time in a job that has to measure everything."""
    with tempfile.TemporaryDirectory() as name, Postgres() as postgres:
        model = SmallModel(folder=Path(name)).write()
        few = _FEW if small else _KILLS
        kinds = (
            ("SQLite", None, None, few),
            ("Postgres", postgres.database(), None, few),
            ("Postgres and shards", postgres.database(), _SHARD_SECONDS, 1 if small else _KILLS),
        )
        expected = None
        for kind, url, seconds, count in kinds:
            with Server(
                Path(name) / kind, root=model.folder, database=url, shard_seconds=seconds
            ) as server:
                trial = _Trial(server=server, body=model.request(), database=kind)
                found, undisturbed = trial.undisturbed()
                # Divided or not, on whichever database: the bits are those of the first.
                expected = found if expected is None else expected
                yield from trial.bars(count, expected, seconds=undisturbed)


@final
@dataclass(frozen=True, kw_only=True)
class _Killed:
    """A job one of whose processes was killed, and what it had measured just `before`."""

    job_id: str
    was_running: bool
    before: Mapping[str, int]

    def measured_twice(self, after: Mapping[str, int]) -> int:
        """Return how many layers were: those written again, and the one in flight if any was."""
        again = sum(after.get(name) != time for name, time in self.before.items())
        in_flight = self.was_running and 0 < len(self.before) < len(after)
        return again + in_flight


@final
@dataclass(frozen=True, kw_only=True)
class _Trial:
    server: Server
    body: Mapping[str, Any]
    database: str

    def bars(self, count: int, expected: bytes, *, seconds: float) -> Iterator[Bar]:
        """Kill each kind `count` times, at moments that are the same on every run.

        A job takes about so many seconds, and its table holds what is `expected`.
        """
        for kind in get_args(Kind):
            moments = random.Random(f"{_SEED}{kind}")  # noqa: S311  # moments, no secrets
            shares = [moments.random() for _ in range(count)]
            yield from self.judged(kind, shares, seconds=seconds, expected=expected)

    def undisturbed(self) -> tuple[bytes, float]:
        """Return the table of a job that nobody disturbs, and how long its runner took."""
        job_id = self._posted()
        start = time.monotonic()
        job = self.server.ended(job_id)
        assert job["metadata"]["state"] == "succeeded", job
        return self._table(job_id), time.monotonic() - start

    def judged(
        self, kind: Kind, shares: Sequence[float], *, seconds: float, expected: bytes
    ) -> Iterator[Bar]:
        """Kill at these shares of a job's `seconds`, and judge how the jobs ended."""
        ended: list[float] = []
        same: list[float] = []
        twice: list[float] = []
        running = 0
        for share in shares:
            killed, seconds = self._disturbed(kind, share=share, seconds=seconds)
            running += killed.was_running
            job = self.server.ended(killed.job_id)
            ended.append(float(job["metadata"]["state"] == "succeeded"))
            same.append(float(bool(ended[-1]) and self._table(killed.job_id) == expected))
            twice.append(float(killed.measured_twice(self._measured())))
        extra = {"killed": kind, "kills": len(shares), "while the job ran": running}
        name = "jobs that ended well after kill -9"
        yield judged(f"{name}: {kind}, {self.database}", ended, target=TARGETS[name], extra=extra)
        name = "tables bit-identical after kill -9"
        yield judged(f"{name}: {kind}, {self.database}", same, target=TARGETS[name], extra=extra)
        name = "layers measured twice after kill -9"
        yield judged(
            f"{name}: {kind}, {self.database}",
            twice,
            target=TARGETS[name],
            statistic="max",
            extra=extra,
        )

    def _disturbed(self, kind: Kind, *, share: float, seconds: float) -> tuple["_Killed", float]:
        """Kill a process of a job; return what was lost, and how long a job takes."""
        for _ in range(_MOST_TRIES):
            job_id = self._posted()
            start = time.monotonic()
            while time.monotonic() - start < share * seconds and not self._is_done(job_id):
                time.sleep(_LOOK_SECONDS)
            if not self._is_done(job_id):
                break
            # The machine has become faster since the last job that was timed.
            seconds = time.monotonic() - start
        before = self._measured()
        was_running = self._kill(kind, job_id)
        return _Killed(job_id=job_id, was_running=was_running, before=before), seconds

    def _measured(self) -> dict[str, int]:
        """Return the file of each layer and batch measured so far, and when it was written.

        Not of what is being written, under a hidden name: that is the one in flight.
        """
        found = (self.server.data / "cache" / _MEASURED).glob("*/[!.]*")
        return {path.name: path.stat().st_mtime_ns for path in found}

    def _is_done(self, job_id: str) -> bool:
        return bool(self.server.job(job_id)["done"])

    def _posted(self) -> str:
        """Post a job that has to measure everything, and wait until its runner is there."""
        # What comes after is found in the cache, so that most of a job is what is looked at.
        shutil.rmtree(self.server.data / "cache" / _MEASURED, ignore_errors=True)
        job_id = self.server.post(self.body)
        deadline = time.monotonic() + _SECONDS_UNTIL_A_RUNNER
        while self.server.runner() is None and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)
        return job_id

    def _kill(self, kind: Kind, job_id: str) -> bool:
        """Kill a process; return whether the job was still running then."""
        was_running = not self._is_done(job_id)
        if kind == "api":
            self.server.kill()
            self.server.start()
            return was_running
        found = self.server.worker() if kind == "worker" else self.server.runner()
        if found is not None:
            os.kill(found, signal.SIGKILL)
        return was_running and found is not None

    def _table(self, job_id: str) -> bytes:
        """Return every bit of the sensitivity table that was measured."""
        path = self.server.data / "jobs" / job_id / "result" / "sensitivity.npz"
        table = load_table(path, SensitivityTable)
        names = "\n".join((*table.layers, *table.formats)).encode()
        return names + table.loss.tobytes() + table.stderr.tobytes()
