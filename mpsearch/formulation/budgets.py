"""Budgets as people write them: a share, a multiple of the fastest, or a number with a unit."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import final

from mpsearch.core.hardware import Resource, latency_key
from mpsearch.core.plan import Budget
from mpsearch.errors import BudgetError


class Yardstick(StrEnum):
    """What the number of a budget is a share of."""

    ABSOLUTE = "absolute"
    FULL_PRECISION = "full_precision"
    FASTEST = "fastest"
    PER_WEIGHT = "per_weight"


@final
@dataclass(frozen=True, kw_only=True)
class ParsedBudget:
    """A budget before it is resolved: `value` in units of its yardstick (1.0 is all of it).

    `workload` names one of several that latency is measured at; empty for the first.
    """

    name: str
    text: str
    resource: Resource
    yardstick: Yardstick
    value: float
    workload: str = ""

    @property
    def key(self) -> str:
        """Return what the resource is called in cost tables."""
        return latency_key(self.workload) if self.workload else self.resource


@final
@dataclass(frozen=True, kw_only=True)
class Yardsticks:
    """What shares refer to, in each resource's own unit, and the number of weights.

    `full_precision` is what the fp32 model spends, `fastest` what the fastest reference plan
    does; `weights` counts the numbers in all layers' weights.
    """

    full_precision: Mapping[str, float]
    fastest: Mapping[str, float]
    weights: int


_RESOURCES = {
    "weight_bytes": Resource.WEIGHT_BYTES,
    "latency": Resource.LATENCY_NS,
    "bops": Resource.BOPS,
    "weight_bits": Resource.WEIGHT_BITS,
    "energy": Resource.ENERGY_NJ,
}
_AT = "@"
_PER_WORKLOAD = frozenset({Resource.LATENCY_NS})
_RESULT_UNIT = {
    Resource.WEIGHT_BYTES: "B",
    Resource.LATENCY_NS: "ns",
    Resource.BOPS: "BOPs",
    Resource.WEIGHT_BITS: "bits",
    Resource.ENERGY_NJ: "nJ",
}
# Decimal prefixes as on a data sheet, binary ones where they are written so (IEC 80000-13).
_UNITS: dict[Resource, dict[str, float]] = {
    Resource.WEIGHT_BYTES: {
        "B": 1.0, "KB": 1e3, "MB": 1e6, "GB": 1e9,
        "KIB": 2.0**10, "MIB": 2.0**20, "GIB": 2.0**30,
    },
    Resource.LATENCY_NS: {"NS": 1.0, "US": 1e3, "MS": 1e6, "S": 1e9},
    Resource.BOPS: {"BOPS": 1.0, "MBOPS": 1e6, "GBOPS": 1e9, "TBOPS": 1e12},
    Resource.WEIGHT_BITS: {},
    Resource.ENERGY_NJ: {"NJ": 1.0, "UJ": 1e3, "MJ": 1e6, "J": 1e9},
}  # fmt: skip
_MICRO = str.maketrans({"\N{MICRO SIGN}": "u", "\N{GREEK SMALL LETTER MU}": "u"})
_EXAMPLE = {
    Resource.WEIGHT_BYTES: "'12MB' or '25%'",
    Resource.LATENCY_NS: "'4ms', '50%' or '115% of fastest'",
    Resource.BOPS: "'2GBOPs' or '25%'",
    Resource.WEIGHT_BITS: "'3.5' (mean bits per weight) or '12%'",
    Resource.ENERGY_NJ: "'4mJ' or '25%'",
}
_NUMBER = re.compile(
    r"(?P<value>[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)\s*(?P<unit>[^\s\d]*)(?P<rest>.*)",
    re.IGNORECASE,
)


def parse_budgets(budgets: Mapping[str, str | float]) -> tuple[ParsedBudget, ...]:
    """Read budgets as the user wrote them.

    Raises:
        BudgetError: There is none, or one is unknown, has no unit, or is not positive.

    Example:
        >>> [parsed.value for parsed in parse_budgets({"weight_bytes": "18%", "latency": "4ms"})]
        [0.18, 4000000.0]
    """
    if not budgets:
        raise BudgetError(
            "No budget is given. Expected at least one, such as {'weight_bytes': '25%'}. "
            f"Choose from {', '.join(_RESOURCES)}."
        )
    return tuple(_parsed(name, text) for name, text in budgets.items())


def _parsed(name: str, text: str | float) -> ParsedBudget:
    kind, at, workload = name.partition(_AT)
    if kind not in _RESOURCES or (at and not (workload and _RESOURCES[kind] in _PER_WORKLOAD)):
        raise BudgetError(
            f"Budget {name!r} is unknown. Expected one of {', '.join(_RESOURCES)}, or latency"
            f"{_AT} and the name of a workload. Rename it, or leave it out."
        )
    resource = _RESOURCES[kind]
    match = _NUMBER.fullmatch(str(text).strip())
    if match is None:
        raise _malformed(name, text=text, fact="is not a number with a unit")
    value = float(match["value"])
    if not (math.isfinite(value) and value > 0):
        raise _malformed(name, text=text, fact="is not positive")
    # Keyboards write the micro sign or the Greek letter, and both have a capital of their own.
    unit = match["unit"].translate(_MICRO).upper()
    rest = match["rest"].strip().lower()
    yardstick, factor = _scale(resource, unit=unit, rest=rest)
    if yardstick is None:
        fact = (
            "has no unit" if not unit else f"has the unknown unit {(unit + ' ' + rest).strip()!r}"
        )
        raise _malformed(name, text=text, fact=fact)
    return ParsedBudget(
        name=name,
        text=str(text),
        resource=resource,
        yardstick=yardstick,
        value=value * factor,
        workload=workload,
    )


def _scale(resource: Resource, *, unit: str, rest: str) -> tuple[Yardstick | None, float]:
    """Return what the number is measured in and its factor; None for a unit that is unknown."""
    if unit == "%":
        if rest == "":
            return Yardstick.FULL_PRECISION, 0.01
        if rest == "of fastest" and resource is Resource.LATENCY_NS:
            return Yardstick.FASTEST, 0.01
        return None, 1.0
    if resource is Resource.WEIGHT_BITS and unit == "" and rest == "":
        return Yardstick.PER_WEIGHT, 1.0
    if rest == "" and unit in _UNITS[resource]:
        return Yardstick.ABSOLUTE, _UNITS[resource][unit]
    return None, 1.0


def _malformed(name: str, *, text: str | float, fact: str) -> BudgetError:
    return BudgetError(
        f"Budget {name}={text!r} {fact}. Expected something like "
        f"{_EXAMPLE[_RESOURCES[name]]}. Write the number with its unit."
    )


def resolve_budgets(
    parsed: tuple[ParsedBudget, ...], *, yardsticks: Yardsticks
) -> tuple[Budget, ...]:
    """Turn shares into limits, in bytes, nanoseconds, BOPs or bits.

    Raises:
        BudgetError: A share refers to something that was not measured.
    """
    return tuple(_resolved(budget, yardsticks=yardsticks) for budget in parsed)


def _resolved(budget: ParsedBudget, *, yardsticks: Yardsticks) -> Budget:
    tables: dict[Yardstick, Mapping[str, float]] = {
        Yardstick.ABSOLUTE: {budget.key: 1.0},
        Yardstick.FULL_PRECISION: yardsticks.full_precision,
        Yardstick.FASTEST: yardsticks.fastest,
        Yardstick.PER_WEIGHT: {budget.key: float(yardsticks.weights)},
    }
    table = tables[budget.yardstick]
    if budget.key not in table:
        raise BudgetError(
            f"Budget {budget.name}={budget.text!r} refers to {budget.key} of the "
            f"{budget.yardstick} plan, which was not measured. Expected one of "
            f"{', '.join(table) or 'none'}. Give it in its own unit, or measure it first."
        )
    return Budget(
        name=budget.name,
        text=budget.text,
        limit=budget.value * float(table[budget.key]),
        unit=_RESULT_UNIT[budget.resource],
    )


def resource_of(budget: Budget) -> str:
    """Return what the resource that a resolved budget limits is called in cost tables."""
    kind, _, workload = budget.name.partition(_AT)
    return latency_key(workload) if workload else _RESOURCES[kind]
