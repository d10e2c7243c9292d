"""Convolutions of both directions as matrix products, against torch's own operators."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn
from torch.nn import functional

from mpsearch.core.formats import format_named
from mpsearch.execution.overrides import layer_override
from mpsearch.execution.patches import patches, transposed_patches
from mpsearch.execution.prefix_store import PrefixStore
from mpsearch.execution.weight_changes import WeightChanges
from mpsearch.tracing import TracedModel, trace_model
from mpsearch.tracing.operators import operator_name
from mpsearch.tracing.weight_layout import as_in_model, outputs_first

_SIZE = 7


def _product(weight: Tensor, found: Tensor, shape: torch.Size) -> Tensor:
    groups = found.shape[1]
    rows = weight.reshape(groups, len(weight) // groups, -1)
    return torch.einsum("gok,sgkp->sgop", rows, found).reshape(shape)


def _traced(layer: nn.Module, x: Tensor) -> tuple[TracedModel, fx.Node]:
    traced = trace_model(layer, [x])
    (name,) = traced.nodes[traced.graph.names[0]]
    return traced, next(node for node in traced.module.graph.nodes if node.name == name)


@settings(max_examples=40, deadline=None)
@given(
    dimensions=st.sampled_from([1, 2]),
    groups=st.sampled_from([1, 2, 4]),
    kernel=st.integers(1, 4),
    stride=st.integers(1, 3),
    padding=st.integers(0, 3),
    dilation=st.integers(1, 2),
    more=st.booleans(),
)
def test_a_transposed_convolution_is_its_weight_times_its_patches(
    dimensions: int, groups: int, *, kernel: int, stride: int, padding: int, dilation: int,
    more: bool,
) -> None:  # fmt: skip
    torch.manual_seed(kernel)
    x = torch.randn(2, 4, *[_SIZE] * dimensions)
    weight = torch.randn(4, 3, *[kernel] * dimensions)
    added = int(more and stride > 1)
    call = (stride, padding, added, groups, dilation)
    operator = getattr(functional, f"conv_transpose{dimensions}d")
    try:
        expected = operator(x, weight, None, *call)
    except RuntimeError:  # a padding that leaves nothing
        return
    first = weight.reshape(groups, 4 // groups, 3, -1).transpose(1, 2).reshape(3 * groups, -1)
    found = transposed_patches((x, weight, None, *call), {})
    assert torch.allclose(_product(first, found, expected.shape), expected, atol=1e-4)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("kind", [nn.Conv1d, nn.Conv2d])
def test_a_convolution_is_its_weight_times_its_patches(kind: type[nn.Module], groups: int) -> None:
    torch.manual_seed(0)
    layer: Any = kind(4, 8, 3, stride=2, padding=1, groups=groups, bias=False)
    x = torch.randn(2, 4, *[_SIZE] * (1 if kind is nn.Conv1d else 2))
    expected = layer(x)
    found = patches((x, layer.weight, None, 2, 1, 1, groups), {})
    assert torch.allclose(_product(layer.weight, found, expected.shape), expected, atol=1e-5)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("kind", [nn.ConvTranspose1d, nn.ConvTranspose2d])
def test_transposed_weights_have_a_scale_for_each_output_channel(
    kind: type[nn.Module], groups: int
) -> None:
    """Scaling one output channel scales what the format makes of it, and nothing else."""
    torch.manual_seed(0)
    layer: Any = kind(4, 8, 3, stride=2, groups=groups, bias=False)
    x = torch.randn(2, 4, *[_SIZE] * (1 if kind is nn.ConvTranspose1d else 2))
    traced, node = _traced(layer, x)
    override = layer_override(traced, traced.graph.names[0], number=format_named("w3"))
    before = override[node.name](*_arguments(node, x, layer.weight))
    with torch.no_grad():
        first = outputs_first(node, layer.weight).clone()
        first[5] *= 64
        layer.weight.copy_(as_in_model(node, first))
    again = layer_override(traced, traced.graph.names[0], number=format_named("w3"))
    after = again[node.name](*_arguments(node, x, layer.weight))
    factor = torch.ones(8)
    factor[5] = 64
    expected = before * factor.reshape(1, -1, *[1] * (x.ndim - 2))
    assert torch.allclose(after, expected, rtol=1e-5, atol=1e-5)
    assert traced.graph.layers[0].weight_shape == tuple(first.shape)


def test_changes_of_a_transposed_weight_are_what_its_override_adds() -> None:
    torch.manual_seed(0)
    layer = nn.ConvTranspose2d(4, 6, 3, groups=2)
    x = torch.randn(2, 4, 5, 5)
    traced, node = _traced(layer, x)
    changes = WeightChanges(traced, {"w4": format_named("w4")}, quantizers={}, dynamic_group=None)
    name = traced.graph.names[0]
    change = as_in_model(node, changes.change(name, "w4"))
    direct = changes.overrides(name, "w4")[node.name](*_arguments(node, x, layer.weight))
    plain = functional.conv_transpose2d(x, layer.weight + change, None, groups=2)
    assert torch.allclose(direct, plain, atol=1e-5)


def test_multiplications_of_a_transposed_convolution_are_those_of_its_gradient() -> None:
    """Each number of the input meets every weight of its channel once."""
    layer = nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2)
    x = torch.randn(2, 4, 5, 5)
    traced, node = _traced(layer, x)
    assert operator_name(node) == "aten.conv_transpose2d"
    assert traced.graph.layers[0].macs == x.numel() * (6 // 2) * 3 * 3
    assert PrefixStore(traced, {"input": x}).full_macs == traced.graph.layers[0].macs


def _arguments(node: fx.Node, x: Tensor, weight: Tensor) -> list[Any]:
    return [x, weight.detach(), None, *node.args[3:]]
