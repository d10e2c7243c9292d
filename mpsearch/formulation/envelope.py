"""Losses made monotone along bits: measured noise must not make fewer bits look better."""

import logging
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Final, final

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from mpsearch.core.formats import format_named
from mpsearch.core.tables import SensitivityTable

_LOG = logging.getLogger("mpsearch.formulation")
_NAMED: Final = 5  # entries that a warning spells out


@final
@dataclass(frozen=True, kw_only=True)
class Envelope:
    """A table whose losses do not fall with fewer bits, and the entries that were changed."""

    table: SensitivityTable
    smoothed: tuple[tuple[str, str], ...]  # (layer, format)


def monotone_envelope(table: SensitivityTable) -> Envelope:
    """Return the nearest losses that do not fall with fewer bits within one kind of format.

    A kind is the same but for the bits of the weight, such as w8 to w2. Entries out of
    order are replaced by their mean, weighted by 1 / stderr^2 where all are known: least
    squares under the order, by pooling neighbours (Barlow et al., 1972). Their standard
    errors become the mean of those pooled, since they come from the same samples. A warning
    names the entries. `numbers` stay as they were measured.
    """
    loss, stderr = table.loss.copy(), table.stderr.copy()
    smoothed: list[tuple[str, str]] = []
    for columns in _kinds(table.formats):
        for row, layer in enumerate(table.layers):
            known = [column for column in columns if np.isfinite(table.loss[row, column])]
            before = table.loss[row, known]
            after, errors = _pooled(before, table.stderr[row, known])
            loss[row, known], stderr[row, known] = after, errors
            changed = np.flatnonzero(after != before)
            smoothed += [(layer, table.formats[known[place]]) for place in changed]
    if smoothed:
        named = ", ".join(f"{layer!r} in {name}" for layer, name in smoothed[:_NAMED])
        _LOG.warning(
            "%d losses of metric %r fall with fewer bits and were smoothed: %s%s. More samples "
            "or draws make them surer.",
            len(smoothed),
            table.metric,
            named,
            " and others" if len(smoothed) > _NAMED else "",
        )
    return Envelope(table=replace(table, loss=loss, stderr=stderr), smoothed=tuple(smoothed))


def _kinds(formats: Sequence[str]) -> list[list[int]]:
    """Return the columns of each kind, the most bits first."""
    kinds: dict[Hashable, list[int]] = {}
    for column, name in enumerate(formats):
        number = format_named(name)
        if not number.is_floating:
            weight = number.weight
            kind = (replace(weight, bits=0), number.activation)
            kinds.setdefault(kind, []).append(column)
    return [
        sorted(columns, key=lambda column: -format_named(formats[column]).weight.bits)
        for columns in kinds.values()
    ]


def _pooled(
    values: Float[ndarray, " N"], errors: Float[ndarray, " N"]
) -> tuple[Float[ndarray, " N"], Float[ndarray, " N"]]:
    """Return the least-squares rising sequence and its errors: pool while neighbours fall."""
    is_weighted = bool((np.isfinite(errors) & (errors > 0)).all())
    weights = errors**-2 if is_weighted else np.ones_like(values)
    pools: list[list[int]] = []
    for place in range(len(values)):
        pools.append([place])
        while len(pools) > 1 and _mean(values, weights, pool=pools[-2]) > _mean(
            values, weights, pool=pools[-1]
        ):
            pools[-2:] = [pools[-2] + pools[-1]]
    rising, spread = values.copy(), errors.copy()
    for pool in pools:
        if len(pool) > 1:
            rising[pool] = _mean(values, weights, pool=pool)
            spread[pool] = _mean(errors, weights, pool=pool)
    return rising, spread


def _mean(values: Float[ndarray, " N"], weights: Float[ndarray, " N"], *, pool: list[int]) -> float:
    return float(np.average(values[pool], weights=weights[pool]))
