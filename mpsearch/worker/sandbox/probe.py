"""Which layers hold on this machine: tried by a child that is shut in, not asked of the kernel."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from mpsearch.worker.sandbox.launch import launched
from mpsearch.worker.sandbox.rules import rules_for

_SECONDS: Final = 60.0
_CLONE_NEW_USER: Final = 0x10000000
_MODULE: Final = "mpsearch.worker.sandbox.probe"


def layers_that_hold(refused: Mapping[str, bool] | None = None) -> tuple[str, ...]:
    """Return the layers whose tries were all refused in a child: "landlock", "seccomp", ..."""
    if refused is None:
        refused = tries_refused()
    wanted = {
        "landlock": ("read", "write", "signal"),
        "seccomp": ("network", "user namespace", "trace"),
        "rlimits": ("memory",),
    }
    return tuple(name for name, tries in wanted.items() if all(refused.get(t) for t in tries))


def tries_refused() -> dict[str, bool]:
    """Return by what a shut-in child tried whether it was refused; empty if it cannot start."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scratch = folder / "scratch"
        scratch.mkdir()
        (folder / "secret").write_text("secret")
        child = launched(
            *(_MODULE, str(folder), str(os.getpid())),
            rules=rules_for(readable=(), writable=(scratch,)),
            scratch=scratch,
            log=subprocess.DEVNULL,
        )
        try:
            out, _ = child.communicate(timeout=_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.communicate()
            return {}
    try:
        found = json.loads(out)
    except ValueError:
        return {}
    return {str(name): bool(value) for name, value in found.items()}


def main(folder: Path, parent: int) -> None:
    """Try, in the child, what no layer may allow, and print what was refused."""
    tries: dict[str, Callable[[], object]] = {
        "read": (folder / "secret").read_text,
        "write": lambda: (folder / "new").write_text("x"),
        "signal": lambda: os.kill(parent, 0),
        "network": _socket,
        "user namespace": lambda: _call("unshare", _CLONE_NEW_USER),
        "trace": lambda: _call("ptrace", 0, 0, 0, 0),
        "memory": lambda: bytearray(2**46),
    }
    sys.stdout.write(json.dumps({name: _is_refused(act) for name, act in tries.items()}))


def _is_refused(act: Callable[[], object]) -> bool:
    try:
        act()
    except (OSError, MemoryError):
        return True
    return False


def _socket() -> None:
    import socket

    # A closed port would refuse too, so it is the socket itself that must not be had.
    socket.socket().close()


def _call(name: str, *arguments: int) -> None:
    import ctypes

    library = ctypes.CDLL(None, use_errno=True)
    if getattr(library, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), name)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
