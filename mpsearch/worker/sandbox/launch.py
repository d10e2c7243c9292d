"""Start a Python module shut in."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from mpsearch.worker.sandbox.rules import Rules, environment_for


def launched(
    module: str, *arguments: str, rules: Rules, scratch: Path, log: IO[bytes] | int
) -> "subprocess.Popen[bytes]":
    """Start `python -m module` in a sandbox, in a folder of its own; stdin and stdout are pipes."""
    return subprocess.Popen(  # noqa: S603  # our own module
        _command(module, arguments, rules=rules),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        cwd=scratch,
        env=environment_for(scratch),
    )


def _command(module: str, arguments: Sequence[str], *, rules: Rules) -> list[str]:
    # -P: the folder that it starts in holds what strangers sent, and no modules.
    python = [sys.executable, "-P", "-m"]
    launcher = [*python, "mpsearch.worker.sandbox.enter", rules.to_json()]
    return [*launcher, *python, module, *arguments]
