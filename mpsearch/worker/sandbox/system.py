"""Calls of the kernel that Python has no function for."""

import ctypes
import errno
import os
from typing import Final

_LIBRARY: Final = ctypes.CDLL(None, use_errno=True)
_NO_NEW_PRIVILEGES: Final = 38
# What a kernel says that lacks a call, or was built or started without it.
_LACKING: Final = (errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


class LayerMissingError(OSError):
    """The kernel here has no such layer."""


def call(number: int, *arguments: object) -> int:
    """Make a system call.

    Raises:
        LayerMissingError: The kernel does not have it.
        OSError: It refused.
    """
    words = [ctypes.c_long(item) if isinstance(item, int) else item for item in arguments]
    return _checked(_LIBRARY.syscall(ctypes.c_long(number), *words), what=f"system call {number}")


def prctl(option: int, *arguments: object) -> int:
    """Change this process; raises as `call` does."""
    words = [ctypes.c_ulong(item) if isinstance(item, int) else item for item in arguments]
    filled = [*words, *[ctypes.c_ulong(0)] * (4 - len(words))]
    return _checked(_LIBRARY.prctl(ctypes.c_int(option), *filled), what=f"prctl {option}")


def give_up_new_privileges() -> None:
    """Let no program that is started gain rights: what both layers ask for first."""
    prctl(_NO_NEW_PRIVILEGES, 1)


def _checked(result: int, *, what: str) -> int:
    if result >= 0:
        return int(result)
    number = ctypes.get_errno()
    kind = LayerMissingError if number in _LACKING else OSError
    raise kind(number, f"{what}: {os.strerror(number)}")
