"""What this machine is: the processor, the cores we may use, the versions of what is installed."""

import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import final

# Instructions that decide how fast a low-precision kernel can be.
_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_int8", "amx_bf16")
_CPUINFO = Path("/proc/cpuinfo")


@final
@dataclass(frozen=True, kw_only=True)
class Processor:
    """A processor: its model name, the cores this process may use, its low-precision flags."""

    name: str
    cores: int
    flags: tuple[str, ...]


def this_processor() -> Processor:
    """Return the processor we run on; flags are known on Linux only.

    Example:
        >>> this_processor().cores >= 1
        True
    """
    facts = _cpuinfo()
    flags = set(facts.get("flags", "").split())
    allowed = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    return Processor(
        name=facts.get("model name") or platform.processor() or platform.machine(),
        cores=allowed or 1,
        flags=tuple(flag for flag in _FLAGS if flag in flags),
    )


def installed_versions(packages: Sequence[str]) -> dict[str, str]:
    """Return the version of Python, and of each package that is installed.

    Example:
        >>> sorted(installed_versions(["numpy", "no-such-package"]))
        ['numpy', 'python']
    """
    found = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _cpuinfo() -> dict[str, str]:
    if not _CPUINFO.exists():
        return {}
    rows = [line.partition(":") for line in _CPUINFO.read_text().splitlines()]
    # Reversed, so that the first core's facts win.
    return {key.strip(): value.strip() for key, _, value in reversed(rows)}
