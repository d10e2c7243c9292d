"""Laws of the sandbox: what is inside reaches nothing but what it was given."""

import ctypes
import errno
import json
import os
import platform
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from mpsearch.worker.sandbox import landlock, seccomp
from mpsearch.worker.sandbox.enter import enter
from mpsearch.worker.sandbox.probe import layers_that_hold
from mpsearch.worker.sandbox.rules import Rules, environment_for, rules_for, rules_from_json

# What every try can use: folders, the other process, and a raw system call.
PRELUDE = """
import ctypes, os, sys
from pathlib import Path
place, other = Path(sys.argv[1]), int(sys.argv[2])
inputs, scratch, outside = place / "inputs", place / "scratch", place / "outside"
def call(number, *words):
    library = ctypes.CDLL(None, use_errno=True)
    result = library.syscall(number, *words)
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")
    return result
"""
ON_X86 = platform.machine() == "x86_64"
CLONE, CLONE3, PIDFD_OPEN, IO_URING = (56, 435, 434, 425) if ON_X86 else (220, 435, 434, 425)
# Each ends by the exception that its comment would be: whoever gets past it has escaped.
REFUSED = {
    "read a file of the server": "(outside / 'secret').read_text()",
    "list a folder of the server": "os.listdir(outside)",
    "read the passwords": "Path('/etc/shadow').read_text()",
    "read the environment of another process": "Path(f'/proc/{other}/environ').read_bytes()",
    "read the memory of another process": "Path(f'/proc/{other}/mem').open('rb')",
    "write outside": "(outside / 'marker').write_text('x')",
    "write into a shared folder": "Path('/dev/shm/marker').write_text('x')",
    "write to an input": "(inputs / 'blob').open('r+b')",
    "write to an input after opening its rights": "(inputs / 'blob').chmod(0o700); "
    "(inputs / 'blob').open('r+b')",
    "delete an input": "(inputs / 'blob').unlink()",
    "give an input a second name": "(scratch / 'blob').hardlink_to(inputs / 'blob')",
    "move an input": "(inputs / 'blob').rename(scratch / 'blob')",
    "leave a link to a file of the server": "(scratch / 'plan').symlink_to(outside / 'secret')",
    "make a device": "os.mknod(scratch / 'device', 0o060600, os.makedev(8, 0))",
    "make a pipe": "os.mkfifo(scratch / 'pipe')",
    "start a shell": "os.execv('/bin/sh', ['sh', '-c', f'touch {outside}/marker'])",
    "start what it wrote": "import shutil; p = scratch / 'x'; "
    "shutil.copy(os.path.realpath(sys.executable), p); "
    "os.execv(p, [p, '-c', 'print(\\'escaped\\')'])",
    "open a socket": "import socket; socket.socket()",
    "open a socket of this machine": "import socket; socket.socket(socket.AF_UNIX)",
    "talk to the kernel": "import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
    "signal another process": "os.kill(other, 0)",
    "watch another process": f"call({PIDFD_OPEN}, other, 0)",
    "trace another process": "ctypes.CDLL(None).ptrace(16, other, 0, 0) < 0 and call(-1)",
    "enter a new user space": f"call({CLONE}, 0x10000000 | 17, 0, 0, 0, 0)",
    "enter a new network": f"call({CLONE}, 0x40000000 | 17, 0, 0, 0, 0)",
    "unshare": "call(272 if sys.maxsize and os.uname().machine == 'x86_64' else 97, 0x10000000)",
    "become another user": "os.setuid(12345)",
    "take all memory": "bytearray(2 ** 46)",
    "write more than a file may hold": "f = (scratch / 'big').open('wb'); f.truncate(2 ** 37)",
    "widen a limit": "import resource; resource.setrlimit(resource.RLIMIT_DATA, (-1, -1))",
}
ALLOWED = {
    "read an input": "assert (inputs / 'blob').read_text() == 'input'",
    "work in its own folder": "p = scratch / 'a'; p.mkdir(); (p / 'b').write_text('c'); "
    "p.rename(scratch / 'd')",
    "start threads": "import threading; t = threading.Thread(target=print); t.start(); t.join()",
    "start Python": "import subprocess; subprocess.run([sys.executable, '-c', ''], check=True)",
    "load a library": "import numpy, ssl; numpy.ones((300, 300)) @ numpy.ones((300, 300))",
}


@pytest.fixture
def inside(tmp_path: Path) -> Callable[[str], "subprocess.CompletedProcess[str]"]:
    """Return what runs a few lines shut in; stdout says "escaped" if they came to their end."""
    for name in ("inputs", "scratch", "outside"):
        (tmp_path / name).mkdir()
    (tmp_path / "outside" / "secret").write_text("secret")
    (tmp_path / "inputs" / "blob").write_text("input")
    (tmp_path / "inputs" / "blob").chmod(0o400)
    scratch = tmp_path / "scratch"
    rules = rules_for(readable=(tmp_path / "inputs",), writable=(scratch,))

    def run(lines: str) -> "subprocess.CompletedProcess[str]":
        launcher = [sys.executable, "-P", "-m", "mpsearch.worker.sandbox.enter", rules.to_json()]
        program = [sys.executable, "-P", "-c", f"{PRELUDE}\n{lines}\nprint('escaped')"]
        return subprocess.run(
            [*launcher, *program, str(tmp_path), str(os.getpid())],
            capture_output=True,
            text=True,
            check=False,
            cwd=scratch,
            env=environment_for(scratch),
        )

    return run


@pytest.mark.parametrize("lines", REFUSED.values(), ids=REFUSED.keys())
def test_nothing_outside_is_reached(
    inside: Callable[[str], "subprocess.CompletedProcess[str]"], lines: str, tmp_path: Path
) -> None:
    done = inside(lines)
    assert "escaped" not in done.stdout, done.stderr
    assert "Error" in done.stderr or done.returncode < 0, done.stderr
    assert not (tmp_path / "outside" / "marker").exists()
    assert not Path("/dev/shm/marker").exists()  # noqa: S108  # where it would have been left
    assert (tmp_path / "inputs" / "blob").read_text() == "input"


@pytest.mark.parametrize("lines", ALLOWED.values(), ids=ALLOWED.keys())
def test_work_can_be_done_inside(
    inside: Callable[[str], "subprocess.CompletedProcess[str]"], lines: str
) -> None:
    done = inside(lines)
    assert "escaped" in done.stdout, done.stderr


def test_the_environment_is_left_outside(
    inside: Callable[[str], "subprocess.CompletedProcess[str]"], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MPS_DATABASE_URL", "postgresql://user:password@host/name")
    done = inside("import json; print(json.dumps(dict(os.environ)))")
    seen = json.loads(done.stdout.splitlines()[0])
    assert "password" not in str(seen)
    assert seen["HF_HUB_OFFLINE"] == "1"
    assert Path(seen["HOME"]) == Path(seen["TMPDIR"])


@pytest.mark.parametrize(
    ("number", "error"), [(CLONE3, errno.ENOSYS), (IO_URING, errno.EPERM)], ids=["clone3", "ring"]
)
def test_the_filter_answers_before_the_kernel_reads_arguments(
    inside: Callable[[str], "subprocess.CompletedProcess[str]"], *, number: int, error: int
) -> None:
    # The kernel itself would refuse these arguments by another error.
    assert f"[Errno {error}]" in inside(f"call({number}, 1, 0)").stderr


def test_every_layer_holds_on_a_current_kernel() -> None:
    assert layers_that_hold() == ("landlock", "seccomp", "rlimits")


def test_a_missing_layer_is_found_by_trying(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mpsearch.worker.sandbox.probe.tries_refused", lambda: {"memory": True})
    assert layers_that_hold() == ("rlimits",)
    monkeypatch.setattr("mpsearch.worker.sandbox.probe.tries_refused", dict)
    assert layers_that_hold() == ()


def test_a_process_with_threads_is_not_shut_in_by_half() -> None:
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        with pytest.raises(RuntimeError, match="several threads"):
            enter(rules_for(readable=(), writable=()))
    finally:
        stop.set()
        thread.join()


def test_rules_survive_their_text(tmp_path: Path) -> None:
    rules = rules_for(readable=(tmp_path, tmp_path / "absent"), writable=(tmp_path,))
    assert rules_from_json(rules.to_json()) == rules
    assert isinstance(rules, Rules)
    assert str(tmp_path / "absent") not in rules.readable


def test_the_filter_names_each_call_once() -> None:
    for column in (0, 1):
        numbers = [numbers[column] for numbers in seccomp._REFUSED.values()]
        assert len(set(numbers)) == len(numbers)
        assert not {seccomp._CLONE[column], seccomp._IOCTL[column]} & set(numbers)


def test_structures_are_laid_out_as_the_kernel_reads_them() -> None:
    assert ctypes.sizeof(landlock._Beneath) == 12
    assert ctypes.sizeof(landlock._Ruleset) == 24
    assert ctypes.sizeof(seccomp._Instruction) == 8
