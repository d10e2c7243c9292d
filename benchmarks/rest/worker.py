"""A worker beside a server, as on another host: `mpsearch worker` on the same data folder."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def worker(
    data: Path, *, root: Path, shard_seconds: float | None = None
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a worker, and kill it at the end, however that comes and wherever it stands."""
    command = [sys.executable, "-m", "mpsearch", "worker", f"--data={data}", f"--root=r={root}"]
    options = [] if shard_seconds is None else [f"--shard-seconds={shard_seconds}"]
    data.mkdir(parents=True, exist_ok=True)
    with (data / "worker.log").open("ab") as log:
        process = subprocess.Popen([*command, *options], stdout=log, stderr=log)
        with process:
            try:
                yield process
            finally:
                process.kill()
