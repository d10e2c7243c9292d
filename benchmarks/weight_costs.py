"""Costs that follow from shapes alone, for plans that are compared by their bits."""

from collections.abc import Sequence

from mpsearch.core.formats import format_named
from mpsearch.core.graph import LayerGraph
from mpsearch.core.hardware import Support, Workload
from mpsearch.core.tables import CostTable
from mpsearch.cost import profile
from mpsearch.execution import takes
from mpsearch.runtimes import RUNTIMES


def weight_costs(graph: LayerGraph, *, formats: Sequence[str]) -> CostTable:
    """Return bits and bytes of every layer in fp32 and in each format that it can take."""
    names = ("fp32", *formats)
    support = {
        layer.name: {
            name: Support.NATIVE
            for name in names
            if name == "fp32" or takes(layer, format_named(name))
        }
        for layer in graph.layers
    }
    return profile(
        None,
        graph,
        runtime=RUNTIMES["simulation"],
        formats=names,
        base_precision="fp32",
        workload=Workload(name="none", shapes={}),
        support=support,
    )
