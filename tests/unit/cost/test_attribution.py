"""Attribution of executed nodes to layers."""

import numpy as np
import pytest

from mpsearch.cost.attribution import layer_seconds
from mpsearch.errors import MeasurementError
from mpsearch.runtimes import NodeTime

LAYERS = ("a", "b", "c")


def _node(seconds: float, *layers: str) -> NodeTime:
    return NodeTime(name="n", type="t", kernel="k", layers=layers, seconds=seconds, signature="s")


def test_own_time_is_the_layers_and_glue_is_the_next_ones() -> None:
    nodes = [
        _node(1.0),
        _node(10.0, "a"),
        _node(2.0),
        _node(3.0),
        _node(20.0, "b"),
        _node(30.0, "c"),
    ]
    seconds = layer_seconds(nodes, layers=LAYERS, whole_seconds=66.0)
    assert seconds.tolist() == [11, 25, 30]


def test_glue_behind_the_last_layer_is_the_last_ones() -> None:
    nodes = [_node(10.0, "b"), _node(20.0, "a"), _node(7.0)]
    assert layer_seconds(nodes, layers=LAYERS, whole_seconds=37.0).tolist() == [27, 10, 0]


def test_a_node_of_two_layers_is_shared_equally() -> None:
    nodes = [_node(2.0), _node(10.0, "a", "c"), _node(8.0, "b")]
    assert layer_seconds(nodes, layers=LAYERS, whole_seconds=20.0).tolist() == [6, 8, 6]
    behind = [_node(4.0, "b"), _node(10.0, "a", "c"), _node(6.0)]
    assert layer_seconds(behind, layers=LAYERS, whole_seconds=20.0).tolist() == [8, 4, 8]


def test_the_parts_sum_to_the_whole_plan() -> None:
    generator = np.random.default_rng(0)
    nodes = [
        _node(float(t), *("abc"[n % 4 : n % 4 + 1])) for n, t in enumerate(generator.random(40))
    ]
    seconds = layer_seconds(nodes, layers=LAYERS, whole_seconds=3.5)
    assert seconds.sum() == pytest.approx(3.5)
    assert (seconds > 0).all()


def test_a_layer_that_runs_several_times_collects_all_of_them() -> None:
    nodes = [_node(10.0, "a"), _node(20.0, "b"), _node(5.0, "a")]
    assert layer_seconds(nodes, layers=LAYERS, whole_seconds=35.0).tolist() == [15, 20, 0]


@pytest.mark.parametrize("nodes", [[], [_node(1.0)], [_node(1.0, "unknown")]])
def test_counters_that_show_no_layer_are_an_error(nodes: list[NodeTime]) -> None:
    with pytest.raises(MeasurementError, match=r"which node runs which layer"):
        layer_seconds(nodes, layers=LAYERS, whole_seconds=1.0)


def test_times_below_what_counters_resolve_are_shared_by_the_layers_that_ran() -> None:
    nodes = [_node(0.0, "a"), _node(0.0), _node(0.0, "c")]
    assert layer_seconds(nodes, layers=LAYERS, whole_seconds=1.0).tolist() == [0.5, 0.0, 0.5]


@pytest.mark.parametrize("wrong", [-1.0, float("nan")])
def test_a_time_that_cannot_be_is_an_error(wrong: float) -> None:
    with pytest.raises(MeasurementError, match=r"Expected a finite time"):
        layer_seconds([_node(wrong, "a")], layers=LAYERS, whole_seconds=1.0)
