"""Formats of weight and input, measured apart and added, with the error of adding them."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final, TypeAlias

import numpy as np
from jaxtyping import Float, Float32
from numpy import ndarray

from mpsearch.core.formats import parts_of
from mpsearch.core.tables import Combining, SensitivityTable
from mpsearch.sensitivity.request import standard_error

# Measures formats of the layers that they are offered to.
Measures: TypeAlias = Callable[[Sequence[str], Mapping[str, Sequence[str]]], SensitivityTable]

_LOG = logging.getLogger("mpsearch.sensitivity")
_ONE_IN: Final = 8  # layers is measured jointly too
_FEWEST: Final = 2


def measure_apart(
    measure: Measures, *, formats: Sequence[str], offered: Mapping[str, Sequence[str]]
) -> SensitivityTable:
    """Measure each weight and each input by itself; a pair such as w4a8 loses their sum.

    W weights and A inputs take W + A measurements instead of W x A. Squares of independent
    errors add; signed numbers are added as such, cross terms included. One layer in eight,
    evenly spread, is measured jointly too: its entries are the measured ones, and how far
    the sums are from them is in `combining`.

    Args:
        measure: A metric with everything settled but formats and layers.
        formats: The columns of the table.
        offered: The formats of each layer.
    """
    parts = {name: parts_of(name) for name in formats}
    pairs = [name for name in formats if all(parts[name])]
    if not pairs:
        return measure(formats, offered)
    single = {layer: _parts(names, parts=parts) for layer, names in offered.items()}
    apart = measure(_parts(formats, parts=parts), single)
    checked = _checked([layer for layer in apart.layers if set(pairs) & set(offered[layer])])
    joint = measure(
        pairs,
        {
            layer: [name for name in names if name in pairs and layer in checked]
            for layer, names in offered.items()
        },
    )
    summed = _summed(apart, formats=formats, parts=parts, offered=offered)
    combining = _combining(summed, joint, pairs=pairs)
    _LOG.info("%s", combining.told)
    return replace(_preferring(joint, over=summed, pairs=pairs), combining=combining)


def _parts(names: Sequence[str], *, parts: Mapping[str, tuple[str, str]]) -> list[str]:
    return list(dict.fromkeys(part for name in names for part in parts[name] if part))


def _checked(layers: Sequence[str]) -> set[str]:
    count = min(len(layers), max(_FEWEST, len(layers) // _ONE_IN))
    places = np.linspace(0, max(len(layers) - 1, 0), count).round().astype(int)
    return {layers[place] for place in places}


def _summed(
    apart: SensitivityTable,
    *,
    formats: Sequence[str],
    parts: Mapping[str, tuple[str, str]],
    offered: Mapping[str, Sequence[str]],
) -> SensitivityTable:
    column = {name: place for place, name in enumerate(apart.formats)}
    places = [[column[part] for part in parts[name] if part] for name in formats]
    is_offered = np.array([[name in offered[layer] for name in formats] for layer in apart.layers])

    def added(values: Float[ndarray, "... L P"]) -> Float[ndarray, "... L F"]:
        sums = np.stack([values[..., place].sum(axis=-1) for place in places], axis=-1)
        return np.where(is_offered, sums, np.nan)

    if apart.numbers is None:
        loss, spread = added(apart.loss), np.sqrt(added(np.square(apart.stderr)))
        return replace(apart, formats=tuple(formats), loss=loss, stderr=spread)
    numbers: Float32[ndarray, "N L F"] = added(apart.numbers).astype(np.float32)
    squares = np.square(numbers.astype(np.float64))
    by_sample = squares.reshape(apart.samples, -1, *squares.shape[1:]).mean(axis=1)
    return replace(
        apart,
        formats=tuple(formats),
        loss=by_sample.mean(axis=0),
        stderr=standard_error(by_sample),
        numbers=numbers,
    )


def _combining(
    summed: SensitivityTable, joint: SensitivityTable, *, pairs: Sequence[str]
) -> Combining:
    columns = [summed.formats.index(name) for name in pairs]
    sums, truth = summed.loss[:, columns], joint.loss
    known = np.isfinite(sums) & (truth > 0)
    errors = np.abs(sums[known] / truth[known] - 1)
    if not errors.size:
        return Combining(checked=0, median=0.0, largest=0.0)
    return Combining(
        checked=errors.size, median=float(np.median(errors)), largest=float(errors.max())
    )


def _preferring(
    joint: SensitivityTable, *, over: SensitivityTable, pairs: Sequence[str]
) -> SensitivityTable:
    """Return the sums with what was measured jointly in their place."""
    loss, stderr = over.loss.copy(), over.stderr.copy()
    numbers = None if over.numbers is None else over.numbers.copy()
    for source, name in enumerate(pairs):
        column = over.formats.index(name)
        rows = np.flatnonzero(np.isfinite(joint.loss[:, source]))
        loss[rows, column] = joint.loss[rows, source]
        stderr[rows, column] = joint.stderr[rows, source]
        if numbers is not None and joint.numbers is not None:
            numbers[:, rows, column] = joint.numbers[:, rows, source]
    return replace(over, loss=loss, stderr=stderr, numbers=numbers)
