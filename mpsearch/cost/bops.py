"""Bit operations and weight bits: costs that follow from shapes and formats alone."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from mpsearch.core.formats import Format, format_named
from mpsearch.core.graph import LayerGraph, Op


def bops_table(graph: LayerGraph, *, formats: Sequence[str], base: str) -> Int[ndarray, "L F"]:
    """Return multiply-accumulates x weight bits x activation bits of one inference.

    A format without an activation format computes with activations of the base. Lookups
    multiply nothing. A product of two activations counts their bits twice. Source: Baskin et
    al. (2021), UNIQ, ACM Trans. Comput. Syst. 37, without their term for accumulators.
    """
    chosen = [format_named(name) for name in formats]
    inputs = [_activation_bits(each, base=base) for each in chosen]
    weights = [each.weight.bits for each in chosen]
    return np.array(
        [
            [
                layer.macs * layer.runs * one * other
                for one, other in zip(
                    inputs, inputs if layer.op is Op.PRODUCT else weights, strict=True
                )
            ]
            for layer in graph.layers
        ],
        dtype=np.int64,
    )


def weight_bits_table(graph: LayerGraph, *, formats: Sequence[str]) -> Int[ndarray, "L F"]:
    """Return the bits of each layer's weight, without scales.

    Layers that share a weight count it once, at the first of them.
    """
    bits = [format_named(name).weight.bits for name in formats]
    counts = [
        0 if repeated else layer.parameters
        for layer, repeated in zip(graph.layers, repeats_weight(graph), strict=True)
    ]
    return np.outer(counts, bits).astype(np.int64)


def repeats_weight(graph: LayerGraph) -> list[bool]:
    """Return, for each layer, whether its weight is that of an earlier layer."""
    later = {place for group in graph.shared_weights for place in sorted(group)[1:]}
    return [place in later for place in range(len(graph.layers))]


def _activation_bits(format_: Format, *, base: str) -> int:
    if format_.activation is not None:
        return format_.activation.bits
    # fp32 itself has no activation format: its activations are as wide as its weights.
    own = format_ if format_.is_floating else format_named(base)
    return own.weight.bits
