"""Reusing the prefix changes no bit of the output, and runs only what a change reaches."""

from functools import cache

import pytest
import torch

from mpsearch.core.formats import format_named
from mpsearch.core.graph import Op
from mpsearch.errors import MeasurementError
from mpsearch.execution import PrefixStore, layer_override, run
from mpsearch.execution.interpreter import evaluate
from mpsearch.testing import networks
from mpsearch.tracing import TracedModel, trace_model

NETWORKS = (
    networks.forms, networks.convolutions, networks.upscaling, networks.transformer,
    networks.wrapped,
)  # fmt: skip


@cache
def _traced(network: networks.Network) -> TracedModel:
    return trace_model(*network())


def _flat(raw: object) -> list[torch.Tensor]:
    leaves = torch.utils._pytree.tree_leaves(raw)
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]


@pytest.mark.parametrize("network", NETWORKS)
def test_the_reference_equals_a_plain_run(network: networks.Network) -> None:
    traced = _traced(network)
    store = PrefixStore(traced, traced.example)
    for ours, plain in zip(_flat(store.output), _flat(run(traced, traced.example)), strict=True):
        assert torch.equal(ours, plain)


@pytest.mark.parametrize("network", NETWORKS)
def test_a_rerun_equals_a_whole_run_with_the_same_change(network: networks.Network) -> None:
    traced = _traced(network)
    store = PrefixStore(traced, traced.example)
    for layer in traced.graph.names:
        overrides = layer_override(traced, layer, number=format_named("w3"))
        with torch.no_grad():
            whole = _flat(evaluate(traced, traced.example, overrides=overrides))
        again = _flat(store.rerun(overrides))
        assert all(torch.equal(one, other) for one, other in zip(whole, again, strict=True))
        reference = _flat(store.output)
        assert any(not torch.equal(one, other) for one, other in zip(again, reference, strict=True))


@pytest.mark.parametrize("network", NETWORKS)
def test_around_a_plan_the_other_layers_keep_their_formats(network: networks.Network) -> None:
    traced = _traced(network)
    plan = {
        node: override
        for layer in traced.graph.names
        for node, override in layer_override(traced, layer, number=format_named("w4")).items()
    }
    store = PrefixStore(traced, traced.example, around=plan)
    for layer in traced.graph.names:
        change = layer_override(traced, layer, number=format_named("w2"))
        with torch.no_grad():
            whole = _flat(evaluate(traced, traced.example, overrides=plan | change))
        again = _flat(store.rerun(change))
        assert all(torch.equal(one, other) for one, other in zip(whole, again, strict=True))
    assert not torch.equal(
        _flat(store.output)[0], _flat(PrefixStore(traced, traced.example).output)[0]
    )


@pytest.mark.parametrize("network", NETWORKS)
def test_nothing_changed_runs_nothing(network: networks.Network) -> None:
    traced = _traced(network)
    store = PrefixStore(traced, traced.example)
    before = store.macs
    again = store.rerun({})
    assert store.macs == before == store.full_macs
    assert all(
        torch.equal(one, other)
        for one, other in zip(_flat(again), _flat(store.output), strict=True)
    )


def test_macs_of_a_pass_are_those_of_the_graph() -> None:
    for network in NETWORKS:
        traced = _traced(network)
        store = PrefixStore(traced, traced.example)
        assert store.full_macs == sum(layer.macs for layer in traced.graph.layers)


def test_a_change_costs_the_layers_from_it_on() -> None:
    traced = _traced(networks.convolutions)
    macs = {layer.name: layer.macs for layer in traced.graph.layers}
    store = PrefixStore(traced, traced.example)
    store.rerun(layer_override(traced, "flat", number=format_named("w4")))
    assert store.macs - store.full_macs == macs["flat"] + macs["head"]


def test_a_change_leaves_branches_beside_it_alone() -> None:
    class Fork(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result = self.left(x) * self.right(x)
            assert isinstance(result, torch.Tensor)
            return result

    traced = trace_model(Fork(), [torch.randn(3, 4)])
    store = PrefixStore(traced, traced.example)
    store.rerun(layer_override(traced, "left", number=format_named("w4")))
    assert store.macs - store.full_macs == traced.graph.layers[0].macs


def test_stored_values_survive_operators_that_work_in_place() -> None:
    traced = _traced(networks.convolutions)
    store = PrefixStore(traced, traced.example)
    before = [value.clone() for value in _flat(store.output)]
    for layer in traced.graph.names:
        store.rerun(layer_override(traced, layer, number=format_named("w2")))
        assert all(
            torch.equal(one, other) for one, other in zip(before, _flat(store.output), strict=True)
        )


def test_the_first_layer_with_broken_numbers_is_named() -> None:
    traced = _traced(networks.convolutions)
    image = traced.example["image"].clone()
    image[0, 0, 0, 0] = 1e38
    store = PrefixStore(traced, {"image": image * 10})
    with pytest.raises(MeasurementError, match="Layer 'first' gives"):
        store.check_finite()
    PrefixStore(traced, traced.example).check_finite()


def test_every_layer_kind_is_covered() -> None:
    kinds = {layer.op for network in NETWORKS for layer in _traced(network).graph.layers}
    # Products have no weight; tests/unit/execution/test_products.py covers them.
    assert kinds == set(Op) - {Op.PRODUCT}
