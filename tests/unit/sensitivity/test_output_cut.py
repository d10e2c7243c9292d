"""The cut lies before the last normalisation, and the graph from there on is the graph."""

from functools import cache

import pytest
import torch
from torch import Tensor, nn

from mpsearch.core.formats import format_named
from mpsearch.execution import layer_override, run
from mpsearch.execution.interpreter import evaluate
from mpsearch.sensitivity.output_cut import Tail, find_cut, watching
from mpsearch.testing import networks
from mpsearch.tracing import TracedModel, trace_model

NETWORKS = (networks.forms, networks.convolutions, networks.transformer, networks.wrapped)


class _Normed(nn.Module):
    """A residual block, a norm, and a head that is wider than what it reads."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)
        self.norm, self.head = nn.LayerNorm(6), nn.Linear(6, 20)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        return self.head(self.norm(hidden + self.second(hidden.tanh())))  # type: ignore[no-any-return]  # torch types the call of a module as Any


class _Towers(nn.Module):
    """Two outputs that share no change."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Linear(4, 3)
        self.middle, self.right = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.left(x), self.right(self.middle(x))


@cache
def _traced(network: networks.Network) -> TracedModel:
    return trace_model(*network())


def _flat(raw: object) -> list[Tensor]:
    leaves = torch.utils._pytree.tree_leaves(raw)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


def test_the_cut_is_before_the_norm_and_leaves_the_wide_head_behind() -> None:
    torch.manual_seed(0)
    traced = trace_model(_Normed().eval(), {"x": torch.randn(3, 6)})
    cut = find_cut(traced, traced.graph.names)
    assert cut is not None
    assert (cut.behind, cut.numbers) == (("head",), 6)
    (norm,) = (node for node in traced.module.graph.nodes if "layer_norm" in node.name)
    assert norm.args[0].name == cut.node


def test_a_head_that_keeps_its_format_is_no_layer_behind() -> None:
    torch.manual_seed(0)
    traced = trace_model(_Normed().eval(), {"x": torch.randn(3, 6)})
    cut = find_cut(traced, ["first", "second"])
    assert cut is not None
    assert cut.behind == ()
    assert cut.numbers == 6


def test_the_logits_are_the_cut_where_they_are_narrowest() -> None:
    traced = _traced(networks.wrapped)
    cut = find_cut(traced, traced.graph.names)
    assert cut is not None
    assert (cut.behind, cut.numbers) == ((), 3)
    assert Tail(traced, traced.example, cut=cut).is_empty


def test_outputs_that_never_meet_have_no_cut() -> None:
    traced = trace_model(_Towers(), {"x": torch.randn(3, 4)})
    assert find_cut(traced, ["left", "middle", "right"]) is None


@pytest.mark.parametrize("network", NETWORKS)
def test_the_tail_gives_the_output_that_the_graph_gives(network: networks.Network) -> None:
    """For a change before the cut and one behind it at once."""
    traced = _traced(network)
    cut = find_cut(traced, traced.graph.names)
    assert cut is not None
    tail = Tail(traced, traced.example, cut=cut)
    for ours, plain in zip(_flat(tail.raw), _flat(run(traced, traced.example)), strict=True):
        assert torch.equal(ours, plain)
    overrides = {
        node: override
        for layer in traced.graph.names
        for node, override in layer_override(traced, layer, number=format_named("w3")).items()
    }
    seen: list[Tensor] = []
    with torch.no_grad():
        watched = watching(traced, cut, overrides=overrides, seen=seen)
        whole = evaluate(traced, traced.example, overrides=watched)
    behind = {node: overrides[node] for layer in cut.behind for node in traced.nodes[layer]}
    again = tail.run(seen[0], overrides=behind)
    assert not torch.equal(seen[0], tail.value)
    for ours, plain in zip(_flat(again), _flat(whole), strict=True):
        assert torch.equal(ours, plain)
