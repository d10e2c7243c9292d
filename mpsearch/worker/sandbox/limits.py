"""Limits of the system on a process, and the rights of root that it gives up."""

import ctypes
import os
import resource
from typing import Final

from mpsearch.worker.sandbox.rules import Rules
from mpsearch.worker.sandbox.system import call

_OPEN_FILES: Final = 4096
_THREADS: Final = 8192
_SET_CAPABILITIES: Final = {"x86_64": 126, "aarch64": 91}
_CAPABILITIES_VERSION: Final = 0x20080522


class _Header(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _Sets(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint32 * 3) for name in ("low", "high")]


def restrict(rules: Rules) -> None:
    """Limit memory, file sizes, open files and threads; leave no memory image behind."""
    for name, most in (
        (resource.RLIMIT_DATA, rules.memory_bytes),
        (resource.RLIMIT_AS, rules.address_bytes),
        (resource.RLIMIT_FSIZE, rules.file_bytes),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
        (resource.RLIMIT_NPROC, _THREADS),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(name)
        value = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(name, (value, value))


def drop_capabilities() -> None:
    """Give up every right of root; files of others are then as closed as to anybody."""
    number = _SET_CAPABILITIES[os.uname().machine]
    header = _Header(_CAPABILITIES_VERSION, 0)
    call(number, ctypes.byref(header), ctypes.byref(_Sets()))
