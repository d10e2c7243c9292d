"""Laws of ownership: one at a time, and whoever dies gives it back."""

import subprocess
import sys
from pathlib import Path

import pytest

from mpsearch.errors import ConflictError
from mpsearch.jobs.data_folder import owned

HOLDER = """
import sys, pathlib
from mpsearch.jobs.data_folder import owned
with owned(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_killed_owner_gives_the_lock_back(tmp_path: Path) -> None:
    lock = tmp_path / "folder" / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(ConflictError, match="held by another"), owned(lock, wait=False):
            pass
        holder.kill()
    with owned(lock, wait=False):
        pass
