"""What one shut-in process may reach."""

import json
import os
import site
import sys
import sysconfig
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

import mpsearch

# What Python, torch and OpenVINO read about the machine. No other process is under /proc/self.
_SYSTEM: Final = (
    *("/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/share/zoneinfo", "/lib", "/lib64"),
    *("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/localtime"),
    *("/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/filesystems"),
    *("/sys/devices/system", "/sys/fs/cgroup", "/dev/urandom", "/dev/zero"),
)
_LOADERS: Final = ("/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1")
_NULL: Final = "/dev/null"
# Neither secret nor able to load code; the rest of the environment stays outside.
_PASSED_ON: Final = ("PATH", "LANG", "LC_ALL", "TZ", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
_SHARE_OF_MEMORY: Final = 0.8
# Files are mapped into it, too, so it is larger than what may be held.
_ADDRESSES_PER_BYTE: Final = 8
_LARGEST_FILE: Final = 64 * 2**30


@final
@dataclass(frozen=True, kw_only=True)
class Rules:
    """Places by what may be done there, and limits; everything beneath a folder is meant."""

    readable: tuple[str, ...]
    writable: tuple[str, ...]
    listable: tuple[str, ...]
    executable: tuple[str, ...]
    memory_bytes: int
    address_bytes: int
    file_bytes: int

    def to_json(self) -> str:
        """Return them as the launcher takes them."""
        return json.dumps(vars(self))


def rules_from_json(text: str) -> Rules:
    """Return what `Rules.to_json` wrote."""
    known = json.loads(text)
    lists = {name: tuple(value) for name, value in known.items() if isinstance(value, list)}
    return Rules(**{**known, **lists})


def rules_for(*, readable: Iterable[Path], writable: Iterable[Path]) -> Rules:
    """Return rules for a Python program that reads and writes these places."""
    held = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    memory = int(held * _SHARE_OF_MEMORY)
    package = Path(mpsearch.__file__).parent
    python = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    user = [site.getusersitepackages()] if site.ENABLE_USER_SITE else []
    # The library that Python itself may be: another one of its name would be found elsewhere.
    here = [f"{sys.base_prefix}/lib", f"{sys.prefix}/pyvenv.cfg", str(package)]
    places = [*_SYSTEM, *python, *site.getsitepackages(), *user, *here, *map(str, readable)]
    return Rules(
        readable=_there(places),
        writable=_there([_NULL, *map(str, writable)]),
        # Python looks for packages by listing each folder on its path.
        listable=_there([str(package.parent)]),
        executable=_there([str(Path(sys.executable).resolve()), *_LOADERS]),
        memory_bytes=memory,
        address_bytes=memory * _ADDRESSES_PER_BYTE,
        file_bytes=_LARGEST_FILE,
    )


def environment_for(scratch: Path) -> Mapping[str, str]:
    """Return the environment of a shut-in process: nothing of ours but what it needs to run."""
    kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    own = dict.fromkeys(("HOME", "TMPDIR", "XDG_CACHE_HOME"), str(scratch))
    offline = dict.fromkeys(("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"), "1")
    return {**kept, **own, **offline, "PYTHONDONTWRITEBYTECODE": "1"}


def _there(places: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(place for place in places if Path(place).exists()))
