"""Plans that a profile has not seen: at random, and such as a person or an optimum chooses."""

import numpy as np
from numpy.random import Generator

from mpsearch.core.graph import LayerGraph, Op
from mpsearch.core.tables import CostTable
from mpsearch.cost.sampling import assignment_of, random_choices

_INT8 = "w8a8"
_MOST_OTHERS = 9


def held_out_plans(
    table: CostTable, graph: LayerGraph, *, random: int, smart: int, generator: Generator
) -> list[tuple[str, dict[str, str]]]:
    """Return plans with their kind; half of the smart ones are segments, half int8 but a few."""
    rows = random_choices(table.allowed, count=random, generator=generator)
    plans = [
        ("random", assignment_of(row, layers=table.layers, formats=table.formats)) for row in rows
    ]
    plans += [("smart", _segments(table, graph, generator=generator)) for _ in range(smart // 2)]
    counts = np.linspace(2, _MOST_OTHERS, smart - smart // 2).astype(int).tolist()
    plans += [
        ("smart", _all_but(table, graph, count=count, generator=generator)) for count in counts
    ]
    return plans


def _segments(table: CostTable, graph: LayerGraph, *, generator: Generator) -> dict[str, str]:
    """Return two formats that meet once; a layer that has neither stays in the base."""
    plan = _with_embeddings(table, graph, generator=generator)
    mains = _mains(graph)
    names = sorted({name for main in mains for name in _formats_of(table, main)})
    one, other = (str(name) for name in generator.choice(names, size=2, replace=False))
    margin = len(mains) // 6
    cut = int(generator.integers(margin, len(mains) - margin))
    for place, main in enumerate(mains):
        wanted = one if place < cut else other
        plan[main] = wanted if wanted in _formats_of(table, main) else table.base
    return plan


def _all_but(
    table: CostTable, graph: LayerGraph, *, count: int, generator: Generator
) -> dict[str, str]:
    """Return all layers in int8 but a few."""
    plan = _with_embeddings(table, graph, generator=generator)
    mains = _mains(graph)
    plan |= {name: _INT8 if _INT8 in _formats_of(table, name) else table.base for name in mains}
    for name in generator.choice(mains, size=min(count, len(mains)), replace=False):
        others = [each for each in _formats_of(table, str(name)) if each != _INT8]
        plan[str(name)] = str(generator.choice(others))
    return plan


def _with_embeddings(
    table: CostTable, graph: LayerGraph, *, generator: Generator
) -> dict[str, str]:
    rows = [layer.name for layer in graph.layers if layer.op is Op.EMBEDDING]
    return {name: str(generator.choice(_formats_of(table, name))) for name in rows}


def _mains(graph: LayerGraph) -> list[str]:
    return [layer.name for layer in graph.layers if layer.op is not Op.EMBEDDING]


def _formats_of(table: CostTable, layer: str) -> list[str]:
    row = table.allowed[table.layers.index(layer)]
    return [name for name, is_allowed in zip(table.formats, row, strict=True) if is_allowed]
