"""Landlock: which files a process reaches, and that it signals and connects to nobody.

Source: Linux kernel, Documentation/userspace-api/landlock.rst.
"""

import ctypes
import os
from pathlib import Path
from typing import Final

from mpsearch.worker.sandbox.rules import Rules
from mpsearch.worker.sandbox.system import call, give_up_new_privileges

_CREATE, _ADD, _RESTRICT = 444, 445, 446  # the same numbers on every processor
_ASK_VERSION: Final = 1
_BENEATH: Final = 1

_EXECUTE, _WRITE, _READ, _LIST = (1 << bit for bit in range(4))
_TRUNCATE, _CONTROL_DEVICE = 1 << 14, 1 << 15
# Removing, and making folders and regular files: no devices, sockets, pipes or links.
_CHANGE_FOLDERS: Final = sum(1 << bit for bit in (4, 5, 7, 8))
_MOVE: Final = 1 << 13
_OF_FILES: Final = _EXECUTE | _WRITE | _READ | _TRUNCATE | _CONTROL_DEVICE
# Rights by the version of the kernel's interface that brought them.
_LAST_BIT_OF: Final = {1: 12, 2: 13, 3: 14, 4: 14, 5: 15}
_NEWEST_KNOWN: Final = 5
_CONNECTING: Final = (4, 0b11)  # since version 4: to listen and to connect by TCP
_SCOPED: Final = (6, 0b11)  # since version 6: to connect to sockets of, and to signal, others


class _Ruleset(ctypes.Structure):
    _fields_ = [
        ("files", ctypes.c_uint64),
        ("network", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    ]


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = [("allowed", ctypes.c_uint64), ("folder", ctypes.c_int32)]


def version() -> int:
    """Return the version of the kernel's interface.

    Raises:
        LayerMissingError: There is none.
    """
    return call(_CREATE, None, 0, _ASK_VERSION)


def restrict(rules: Rules) -> None:
    """Shut this thread, and all that it starts, in.

    Raises:
        LayerMissingError: The kernel has no Landlock.
    """
    known = version()
    handled = (1 << (_LAST_BIT_OF[min(known, _NEWEST_KNOWN)] + 1)) - 1
    wanted = _Ruleset(handled, _since(known, _CONNECTING), _since(known, _SCOPED))
    size = 8 * (1 + (known >= _CONNECTING[0]) + (known >= _SCOPED[0]))
    ruleset = call(_CREATE, ctypes.byref(wanted), size, 0)
    every_change = _READ | _LIST | _WRITE | _TRUNCATE | _CHANGE_FOLDERS | _MOVE
    for places, rights in (
        (rules.readable, _READ | _LIST),
        (rules.writable, every_change),
        (rules.listable, _LIST),
        (rules.executable, _EXECUTE | _READ),
    ):
        for place in places:
            _allow(ruleset, place, rights=rights & handled)
    give_up_new_privileges()
    call(_RESTRICT, ruleset, 0)
    os.close(ruleset)


def _since(known: int, feature: tuple[int, int]) -> int:
    return feature[1] if known >= feature[0] else 0


def _allow(ruleset: int, place: str, *, rights: int) -> None:
    found = os.open(place, os.O_PATH | os.O_CLOEXEC)
    try:
        meant = rights if Path(place).is_dir() else rights & _OF_FILES
        call(_ADD, ruleset, _BENEATH, ctypes.byref(_Beneath(meant, found)), 0)
    finally:
        os.close(found)
