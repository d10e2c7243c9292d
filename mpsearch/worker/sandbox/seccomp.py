"""seccomp: which calls of the kernel a process may make; a filter in classic BPF.

Everything is allowed but what reaches other processes, other machines, or more of the kernel
than computing needs. Source: Linux kernel, Documentation/userspace-api/seccomp_filter.rst.
"""

import ctypes
import errno
import platform
from typing import Final

from mpsearch.worker.sandbox.system import LayerMissingError, give_up_new_privileges, prctl

_SET_FILTER, _FILTER_MODE = 22, 2
_ALLOW, _FAIL, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _MACHINE, _FIRST_ARGUMENT, _SECOND_ARGUMENT = 0, 4, 16, 24
_FOREIGN_NUMBERS: Final = 0x40000000  # those of the x32 interface, under other numbers
# New name spaces: time, mounts, control groups, host name, IPC, users, processes, network.
_NEW_SPACES: Final = 0x80 | 0x20000 | 0x2000000 | 0x4000000 | 0x8000000 | 0x10000000
_NEW_SPACES_TOO: Final = 0x20000000 | 0x40000000
_TERMINAL_INPUT: Final = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX: typing for somebody else

# Name: number on x86-64, number on ARM 64.
_REFUSED: Final = {
    "socket": (41, 198), "connect": (42, 203), "accept": (43, 202), "accept4": (288, 242),
    "bind": (49, 200), "listen": (50, 201), "sendto": (44, 206), "sendmsg": (46, 211),
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "kcmp": (312, 272), "pidfd_open": (434, 434), "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424), "process_madvise": (440, 440),
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51),
    "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430),
    "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433),
    "mount_setattr": (442, 442), "unshare": (272, 97), "setns": (308, 268),
    "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265),
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "init_module": (175, 105),
    "finit_module": (313, 273), "delete_module": (176, 106), "reboot": (169, 142),
    "swapon": (167, 224), "swapoff": (168, 225), "quotactl": (179, 60), "acct": (163, 89),
    "settimeofday": (164, 170), "clock_settime": (227, 112), "adjtimex": (159, 171),
    "sethostname": (170, 161), "setdomainname": (171, 162), "personality": (135, 92),
    "fanotify_init": (300, 262), "syslog": (103, 116), "memfd_secret": (447, 447),
}  # fmt: skip
_CLONE, _CLONE3, _IOCTL = (56, 220), (435, 435), (16, 29)
_MACHINES: Final = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}


class _Instruction(ctypes.Structure):
    _fields_ = [
        ("code", ctypes.c_uint16),
        ("if_true", ctypes.c_uint8),
        ("if_false", ctypes.c_uint8),
        ("value", ctypes.c_uint32),
    ]


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_uint16), ("first", ctypes.POINTER(_Instruction))]


def restrict() -> None:
    """Filter the calls of this thread, and of all that it starts.

    Raises:
        LayerMissingError: The kernel has no seccomp, or the processor is not known here.
    """
    if platform.machine() not in _MACHINES:
        raise LayerMissingError(errno.ENOSYS, f"no filter for {platform.machine()!r}")
    instructions = _filter(*_MACHINES[platform.machine()])
    listed = (_Instruction * len(instructions))(*instructions)
    give_up_new_privileges()
    prctl(_SET_FILTER, _FILTER_MODE, ctypes.byref(_Program(len(instructions), listed)))


def _filter(column: int, machine: int) -> list[_Instruction]:
    """Return the program; a jump skips so many instructions."""
    made = [
        _Instruction(_LOAD, 0, 0, _MACHINE),
        _Instruction(_EQUAL, 1, 0, machine),
        _Instruction(_RETURN, 0, 0, _KILL),
        _Instruction(_LOAD, 0, 0, _NUMBER),
        _Instruction(_AT_LEAST, 0, 1, _FOREIGN_NUMBERS),
        _Instruction(_RETURN, 0, 0, _KILL),
    ]
    for numbers in _REFUSED.values():
        made += _fail(numbers[column], error=errno.EPERM)
    # The C library then falls back to clone, whose flags can be read.
    made += _fail(_CLONE3[column], error=errno.ENOSYS)
    made += [
        _Instruction(_EQUAL, 0, 3, _CLONE[column]),
        _Instruction(_LOAD, 0, 0, _FIRST_ARGUMENT),
        _Instruction(_ANY_BIT, 0, 1, _NEW_SPACES | _NEW_SPACES_TOO),
        _Instruction(_RETURN, 0, 0, _FAIL | errno.EPERM),
        _Instruction(_LOAD, 0, 0, _NUMBER),
        _Instruction(_EQUAL, 0, 4, _IOCTL[column]),
        _Instruction(_LOAD, 0, 0, _SECOND_ARGUMENT),
        _Instruction(_EQUAL, 1, 0, _TERMINAL_INPUT[0]),
        _Instruction(_EQUAL, 0, 1, _TERMINAL_INPUT[1]),
        _Instruction(_RETURN, 0, 0, _FAIL | errno.EPERM),
        _Instruction(_RETURN, 0, 0, _ALLOW),
    ]
    return made


def _fail(number: int, *, error: int) -> list[_Instruction]:
    return [
        _Instruction(_EQUAL, 0, 1, number),
        _Instruction(_RETURN, 0, 0, _FAIL | error),
    ]
