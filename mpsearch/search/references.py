"""Reference plans: what a user could write down without a search, and must beat."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import product

from mpsearch.core.formats import format_named
from mpsearch.core.graph import LayerGraph, Op
from mpsearch.core.hardware import Support


def reference_assignments(
    graph: LayerGraph,
    *,
    base: str,
    formats: Sequence[str],
    support: Mapping[str, Mapping[str, Support]],
) -> tuple[dict[str, str], ...]:
    """Return the assignment of every (format for Linear and Conv, for embeddings, for products).

    A layer that cannot take its format stays in the base.

    A format counts for a kind of layer where at least one of them supports it; combinations
    that come to the same assignment are named once. Layers that share a weight share its format,
    that of the first of them, or else stay in the base: the file has the weight once.

    Args:
        graph: The layers.
        base: The base precision that all other operators run in.
        formats: Formats on offer, the base among them or not.
        support: How the runtime treats each layer name in each format.
    """
    own = {op: [layer.name for layer in graph.layers if layer.op is op] for op in Op}
    embeddings, products = own[Op.EMBEDDING], own[Op.PRODUCT]
    others = [name for name in graph.names if name not in {*embeddings, *products}]
    found: dict[tuple[str, ...], dict[str, str]] = {}
    for main, small, inputs in product(
        *(
            _usable(names, base=base, formats=formats, support=support)
            for names in (others, embeddings, products)
        )
    ):
        wanted = dict.fromkeys(others, main) | dict.fromkeys(embeddings, small)
        wanted |= dict.fromkeys(products, inputs)
        assignment = {
            name: wanted[name] if _takes(support, layer=name, format_=wanted[name]) else base
            for name in graph.names
        }
        assignment |= _tied(assignment, graph=graph, base=base, support=support)
        found.setdefault(tuple(assignment.values()), assignment)
    return tuple(found.values())


def pattern_of(layer: str, *, fixed: Mapping[str, str]) -> str | None:
    """Return the format that the last matching pattern pins a layer to; None where none does."""
    matching = [name for pattern, name in fixed.items() if fnmatchcase(layer, pattern)]
    return matching[-1] if matching else None


def pinned(assignment: Mapping[str, str], *, fixed: Mapping[str, str], base: str) -> dict[str, str]:
    """Return the assignment with pinned layers in their formats; fp32 stands for the base."""
    found = {}
    for layer, name in assignment.items():
        wanted = pattern_of(layer, fixed=fixed) or name
        found[layer] = base if wanted == "fp32" else wanted
    return found


def _tied(
    assignment: Mapping[str, str],
    *,
    graph: LayerGraph,
    base: str,
    support: Mapping[str, Mapping[str, Support]],
) -> dict[str, str]:
    """Return the one format of each group of layers that share a weight."""
    found: dict[str, str] = {}
    for group in graph.shared_weights:
        names = [graph.names[place] for place in group]
        first = assignment[names[0]]
        is_common = all(_takes(support, layer=name, format_=first) for name in names)
        found |= dict.fromkeys(names, first if is_common else base)
    return found


def _usable(
    layers: Sequence[str],
    *,
    base: str,
    formats: Sequence[str],
    support: Mapping[str, Mapping[str, Support]],
) -> tuple[str, ...]:
    usable = [
        name
        for name in formats
        if not format_named(name).is_floating
        and any(_takes(support, layer=layer, format_=name) for layer in layers)
    ]
    return (base, *usable)


def _takes(support: Mapping[str, Mapping[str, Support]], *, layer: str, format_: str) -> bool:
    return support[layer].get(format_, Support.NONE) is not Support.NONE
