"""A bar: one measured figure beside the target it has to reach."""

import json
import os
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from statistics import fmean
from typing import Literal, TypeAlias, final

Statistic: TypeAlias = Literal["mean", "max", "min"]
_STATISTICS: Mapping[Statistic, Callable[[Sequence[float]], float]] = {
    "mean": fmean,
    "max": max,
    "min": min,
}

# Instructions that decide how fast a low-precision kernel can be.
_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_int8", "amx_bf16")
_PACKAGES = ("mpsearch", "numpy", "scipy", "highspy", "pulp", "torch", "onnx", "openvino")


@final
@dataclass(frozen=True, kw_only=True)
class Target:
    """What a figure in `unit` has to reach: at most, at least, or both; neither only reports."""

    unit: str
    at_most: float | None = None
    at_least: float | None = None

    @property
    def text(self) -> str:
        """Return the target in words."""
        limits = (("at least", self.at_least), ("at most", self.at_most))
        words = [f"{word} {limit:g}" for word, limit in limits if limit is not None]
        return f"{' and '.join(words)} {self.unit}".strip() if words else "reported"

    def is_met(self, value: float) -> bool:
        """Return whether a value reaches the target; NaN never does."""
        low = float("-inf") if self.at_least is None else self.at_least
        high = float("inf") if self.at_most is None else self.at_most
        return low <= value <= high


@final
@dataclass(frozen=True, kw_only=True)
class Bar:
    """A figure called `bar`; `value` is None where there was nothing to compare.

    `extra` holds what a reader needs to judge the value: spread, counts, what was compared.
    """

    bar: str
    value: float | None
    unit: str
    target: str
    passed: bool
    extra: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.value is None and self.passed:
            raise ValueError(
                f"Bar {self.bar!r} has no value and claims to pass. Expected a failed bar: an "
                "empty comparison proves nothing. Build it with `judged`."
            )


def judged(
    bar: str,
    values: Sequence[float],
    *,
    target: Target,
    statistic: Statistic = "mean",
    extra: Mapping[str, object] | None = None,
) -> Bar:
    """Return the bar of the mean, largest or smallest of `values`; failed where there are none.

    Several values leave their count and spread in `extra`.

    Example:
        >>> judged("error", [1.0, 3.0], target=Target(unit="%", at_most=4)).passed
        True
        >>> judged("error", [], target=Target(unit="%", at_most=4)).passed
        False
    """
    more = dict(extra or {})
    if len(values) != 1:
        more["count"] = len(values)
    if len(values) > 1:
        more |= {"smallest": min(values), "largest": max(values)}
    value = float(_STATISTICS[statistic](values)) if values else None
    passed = value is not None and target.is_met(value)
    return Bar(
        bar=bar, value=value, unit=target.unit, target=target.text, passed=passed, extra=more
    )


def to_line(bar: Bar, *, command: str) -> str:
    """Return a bar as one line of JSON, with the machine, the versions and the command."""
    context = {"machine": machine(), "versions": versions(), "command": command}
    return json.dumps({**asdict(bar), **context}, default=str)


def machine() -> dict[str, object]:
    """Return what about this machine decides speed: processor, cores we may use, instructions."""
    name, flags = _processor()
    return {
        "cpu": name,
        "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
        "flags": [flag for flag in _FLAGS if flag in flags],
        "system": platform.platform(),
    }


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that take part and are installed."""
    installed = {item.metadata["Name"].lower(): item.version for item in metadata.distributions()}
    found = {name: installed[name] for name in _PACKAGES if name in installed}
    return {"python": platform.python_version(), **found}


def _processor() -> tuple[str, frozenset[str]]:
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return platform.processor() or platform.machine(), frozenset()
    rows = [line.partition(":") for line in path.read_text().splitlines()]
    facts = {key.strip(): value.strip() for key, _, value in reversed(rows)}
    return facts.get("model name", platform.machine()), frozenset(facts.get("flags", "").split())
