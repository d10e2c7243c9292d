"""Laws of children: they end with their parent, even where it was killed."""

import subprocess
import sys
import time
from pathlib import Path

CHILD = """
import pathlib, sys, time
from mpsearch.worker.lifeline import end_with_parent
end_with_parent()
beat = pathlib.Path(sys.argv[1])
while True:
    beat.write_text(str(time.time()))
    time.sleep(0.01)
"""
PARENT = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", sys.argv[1], sys.argv[2]], stdin=subprocess.PIPE)
time.sleep(600)
"""


def test_a_child_ends_with_a_killed_parent(tmp_path: Path) -> None:
    beat = tmp_path / "beat"
    with subprocess.Popen([sys.executable, "-c", PARENT, CHILD, str(beat)]) as parent:
        while not beat.exists():
            time.sleep(0.01)
        parent.kill()
    deadline = time.monotonic() + 20
    last = 0
    while (now := beat.stat().st_mtime_ns) != last:
        assert time.monotonic() < deadline, "the child lives on"
        last = now
        time.sleep(0.5)
