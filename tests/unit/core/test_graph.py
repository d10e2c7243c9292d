"""Laws of the graph of layers."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpsearch.core.graph import Layer, LayerGraph, Op
from mpsearch.errors import UnknownLayerError


def linear(name: str, *, shape: tuple[int, ...] = (4, 8)) -> Layer:
    return Layer(
        name=name,
        op=Op.LINEAR,
        weight_shape=shape,
        input_shape=(1, 8),
        output_shape=(1, 4),
        macs=32,
        inputs_from="x",
    )


GRAPH = LayerGraph(
    layers=(linear("block.0.query"), linear("block.0.key"), linear("block.1.query")),
    edges=((0, 2), (1, 2)),
    fingerprint="f",
)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=4))
def test_parameters_are_the_product_of_the_shape(shape: list[int]) -> None:
    assert linear("a", shape=tuple(shape)).parameters == math.prod(shape)


def test_a_signature_depends_on_shapes_and_not_on_the_name() -> None:
    assert linear("a").signature == linear("b").signature
    assert linear("a").signature != linear("a", shape=(8, 4)).signature


@pytest.mark.parametrize("name", GRAPH.names)
def test_an_index_leads_back_to_the_name(name: str) -> None:
    assert GRAPH.layers[GRAPH.index(name)].name == name


def test_a_pattern_matches_in_order_of_execution() -> None:
    assert GRAPH.matching("*.query") == ("block.0.query", "block.1.query")
    assert GRAPH.matching("block.0.key") == ("block.0.key",)


def test_an_unknown_layer_is_refused_with_the_way_to_list_them() -> None:
    with pytest.raises(UnknownLayerError, match=r"'nowhere'.*mpsearch measure"):
        GRAPH.index("nowhere")
    with pytest.raises(UnknownLayerError, match=r"'\*\.value'.*mpsearch measure"):
        GRAPH.matching("*.value")
