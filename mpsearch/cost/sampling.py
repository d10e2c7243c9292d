"""Which whole plans are measured besides the references: random ones with mixed shares."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Int
from numpy import ndarray
from numpy.random import Generator

# Below one, a draw has one or two formats that prevail: real plans have unequal shares, and
# a model fitted to equal ones is off where they are not.
_CONCENTRATION = 0.7


def random_choices(
    allowed: Bool[ndarray, "L F"], *, count: int, generator: Generator
) -> Int[ndarray, "N L"]:
    """Return plans whose shares of formats are drawn anew for each plan.

    Shares come from a Dirichlet distribution, one for all layers; each layer draws among
    the formats it is allowed.
    """
    layers, formats = allowed.shape
    rows = np.zeros((count, layers), dtype=np.int64)
    for row in rows:
        # A share of zero for all that a layer may have would leave it nothing to draw.
        shares = generator.dirichlet(np.full(formats, _CONCENTRATION)) + 1e-6
        for layer in range(layers):
            weight = np.where(allowed[layer], shares, 0.0)
            row[layer] = generator.choice(formats, p=weight / weight.sum())
    return rows


def covering_choices(
    allowed: Bool[ndarray, "L F"],
    *,
    signatures: Sequence[str],
    measured: Int[ndarray, "N L"],
) -> Int[ndarray, "M L"]:
    """Return plans in which every signature takes each format that no measured plan gave it.

    Where a signature has no such format left, its layers take their first one.
    """
    seen = {
        (signatures[layer], int(column)) for row in measured for layer, column in enumerate(row)
    }
    rows: list[list[int]] = []
    while True:
        row = [int(np.argmax(each)) for each in allowed]
        fresh: dict[str, int] = {}
        for layer, signature in enumerate(signatures):
            missing = [
                int(column)
                for column in np.flatnonzero(allowed[layer])
                if (signature, int(column)) not in seen
            ]
            if signature not in fresh and missing:
                fresh[signature] = missing[0]
            wanted = fresh.get(signature)
            if wanted is not None and allowed[layer, wanted]:
                row[layer] = wanted
        if not fresh:
            return np.array(rows, dtype=np.int64).reshape(-1, len(signatures))
        seen |= set(fresh.items())
        rows.append(row)


def assignment_of(
    choice: Int[ndarray, " L"], *, layers: Sequence[str], formats: Sequence[str]
) -> dict[str, str]:
    """Return {layer: format} of a choice."""
    return {layer: formats[int(column)] for layer, column in zip(layers, choice, strict=True)}


def choice_of(
    assignment: Mapping[str, str], *, layers: Sequence[str], formats: Sequence[str]
) -> Int[ndarray, " L"]:
    """Return the column of each layer's format."""
    return np.array([formats.index(assignment[layer]) for layer in layers], dtype=np.int64)
