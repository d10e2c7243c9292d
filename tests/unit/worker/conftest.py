"""A store and a supervisor whose runner is a few lines of Python."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest

from mpsearch.jobs.data_folder import DataFolder
from mpsearch.jobs.migrate import migrate
from mpsearch.jobs.store import JobStore
from mpsearch.jobs.tables import open_database
from mpsearch.worker import attempts
from mpsearch.worker.sandbox.rules import Rules
from mpsearch.worker.supervise import Supervisor

# What every fake runner can use: `report(done)`, `end(error=None)`, and `folder`.
_PRELUDE = """
import json, os, signal, sys, time
from pathlib import Path
folder = Path(sys.argv[1])
def report(done):
    print(json.dumps({"phase": "measure", "done": done, "total": 9, "seconds": 1.0}), flush=True)
def end(error=None):
    (folder / "outcome.json").write_text(json.dumps({"error": error}))
starts = folder / "starts"
starts.write_text(starts.read_text() + "x" if starts.exists() else "x")
start = len(starts.read_text())
"""


def write_root(folder: Path) -> None:
    """Write what looks like a model and samples from outside."""
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "config.json").write_text("{}")
    header = b"{}      "
    weights = len(header).to_bytes(8, "little") + header
    (folder / "model" / "model.safetensors").write_bytes(weights)
    (folder / "data.jsonl").write_text('{"text": "a"}\n')


@pytest.fixture
def supervisor(tmp_path: Path) -> Supervisor:
    """Return a supervisor over an empty store."""
    data = DataFolder(path=tmp_path)
    engine = open_database(data.database_url)
    migrate(engine)
    write_root(tmp_path / "root")
    return Supervisor(
        data=data, store=JobStore(engine=engine, owner="one"), roots={"r": tmp_path / "root"}
    )


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return what replaces the runner by a program."""

    def replace(program: str) -> None:
        def start(folder: Path, *, rules: Rules, log: IO[bytes]) -> "subprocess.Popen[bytes]":
            del rules
            return subprocess.Popen(
                [sys.executable, "-c", _PRELUDE + program, str(folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )

        monkeypatch.setattr(attempts, "_runner", start)

    return replace
