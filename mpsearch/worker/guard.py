"""Keeps one worker alive: starts it as a child, and again whenever it dies."""

import json
import logging
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final, final

from mpsearch.jobs.data_folder import DataFolder

_LOG = logging.getLogger("mpsearch.worker")
_SECONDS_BETWEEN_LOOKS: Final = 0.2
# A worker that cannot start at all must not fill the log.
_FIRST_PAUSE_SECONDS: Final = 0.2
_LONGEST_PAUSE_SECONDS: Final = 10.0
_SECONDS_OF_A_GOOD_START: Final = 20.0


@final
class WorkerGuard:
    """Runs `python -m mpsearch.worker` from `start` to `stop`."""

    def __init__(
        self,
        data: DataFolder,
        *,
        roots: Mapping[str, Path],
        shard_seconds: float | None = None,
        json_logs: bool = False,
    ) -> None:
        named = [f"--root={name}={folder}" for name, folder in roots.items()]
        self._command = [
            sys.executable,
            "-m",
            "mpsearch.worker",
            str(data.path),
            "--end-with-parent",
            *named,
            *([] if data.bucket is None else [f"--bucket={data.bucket}"]),
            *([] if shard_seconds is None else [f"--shard-seconds={shard_seconds}"]),
            *(["--json-logs"] if json_logs else []),
        ]
        # Through stdin: arguments and environments of processes can be read by others.
        self._first_words = b""
        if data.database is not None:
            self._command.append("--database-by-stdin")
            self._first_words = json.dumps(data.database).encode() + b"\n"
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._guard, name="worker-guard", daemon=True)

    def start(self) -> None:
        """Start the worker."""
        self._thread.start()

    def stop(self) -> None:
        """End the worker; its jobs go on when a worker starts again."""
        self._stopping.set()
        self._thread.join()

    def _guard(self) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while not self._stopping.is_set():
            lived = self._life()
            if self._stopping.is_set():
                return
            short = lived < _SECONDS_OF_A_GOOD_START
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS) if short else _FIRST_PAUSE_SECONDS
            _LOG.warning("The worker ended after %.0f s. It is started again.", lived)
            self._stopping.wait(pause)

    def _life(self) -> float:
        try:
            return self._live_once()
        except OSError:
            # No memory for a process, or one that died before it could be spoken to.
            _LOG.exception("The worker could not be started.")
            return 0.0

    def _live_once(self) -> float:
        """Start a worker and wait until it ends or shall; return how many seconds it lived."""
        seconds = 0.0
        # Its stdin closes when we go, however we go, and then it goes too.
        with subprocess.Popen(self._command, stdin=subprocess.PIPE) as worker:  # noqa: S603  # our own module
            assert worker.stdin is not None
            worker.stdin.write(self._first_words)
            worker.stdin.flush()
            while worker.poll() is None and not self._stopping.wait(_SECONDS_BETWEEN_LOOKS):
                seconds += _SECONDS_BETWEEN_LOOKS
            worker.kill()
        return seconds
