"""Bit operations and weight bits of a graph small enough to count by hand."""

import numpy as np

from mpsearch.core.graph import Layer, LayerGraph, Op
from mpsearch.cost.bops import bops_table, repeats_weight, weight_bits_table


def _layer(name: str, *, op: Op = Op.LINEAR, macs: int) -> Layer:
    return Layer(
        name=name,
        op=op,
        weight_shape=(4, 6),
        input_shape=(2, 6),
        output_shape=(2, 4),
        macs=macs,
        inputs_from="x",
    )


GRAPH = LayerGraph(
    layers=(_layer("words", op=Op.EMBEDDING, macs=0), _layer("a", macs=48), _layer("b", macs=96)),
    edges=((0, 1), (1, 2)),
    shared_weights=((0, 2),),
    fingerprint="f",
)
FORMATS = ("fp32", "bf16", "w8a8", "w8", "w4g128")


def test_bops_are_macs_times_both_widths() -> None:
    table = bops_table(GRAPH, formats=FORMATS, base="fp32")
    assert table[1].tolist() == [48 * 1024, 48 * 256, 48 * 64, 48 * 8 * 32, 48 * 4 * 32]
    assert (table[2] == 2 * table[1]).all()


def test_weights_alone_compute_with_activations_of_the_base() -> None:
    table = bops_table(GRAPH, formats=FORMATS, base="bf16")
    assert table[1].tolist() == [48 * 1024, 48 * 256, 48 * 64, 48 * 8 * 16, 48 * 4 * 16]


def test_a_lookup_multiplies_nothing() -> None:
    assert not bops_table(GRAPH, formats=FORMATS, base="fp32")[0].any()


def test_weight_bits_count_a_shared_weight_once_at_its_first_layer() -> None:
    table = weight_bits_table(GRAPH, formats=FORMATS)
    assert table[0].tolist() == [24 * bits for bits in (32, 16, 8, 8, 4)]
    assert (table[1] == table[0]).all()
    assert not table[2].any()
    assert repeats_weight(GRAPH) == [False, False, True]
    assert table.dtype == np.int64
