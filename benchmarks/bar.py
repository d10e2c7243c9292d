"""A bar: one measured figure beside the target it has to reach."""

import json
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Literal, TypeAlias, final

from mpsearch.core.machine import installed_versions, this_processor

Statistic: TypeAlias = Literal["mean", "max", "min"]
_STATISTICS: Mapping[Statistic, Callable[[Sequence[float]], float]] = {
    "mean": fmean,
    "max": max,
    "min": min,
}

_PACKAGES = (
    "mpsearch",
    "numpy",
    "scipy",
    "highspy",
    "pulp",
    "torch",
    "onnx",
    "onnxruntime",
    "openvino",
    "nncf",
)


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
    return {**asdict(this_processor()), "system": platform.platform()}


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that take part and are installed."""
    return installed_versions(_PACKAGES)
