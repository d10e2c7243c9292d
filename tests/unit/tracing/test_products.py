"""Products of two activations are layers where they are asked for, and change no number."""

from functools import cache
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from mpsearch.core.graph import Op, is_product_name
from mpsearch.execution import PrefixStore, run
from mpsearch.testing import networks
from mpsearch.tracing import base_onnx, load_onnx, trace_model, trace_onnx, trace_program
from mpsearch.tracing.traced_model import TracedModel

_TOKENS, _WIDTH, _HEADS = 6, 8, 2


class Attention(nn.Module):
    """Attention with every argument that it takes, and beside it products of other kinds."""

    def __init__(self, **arguments: Any) -> None:  # noqa: ANN401 - of the operator
        super().__init__()
        self.qkv = nn.Linear(_WIDTH, 3 * _WIDTH)
        self.table = nn.Parameter(torch.randn(4, 3, _WIDTH))
        self.arguments = arguments

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        parts = self.qkv(x).reshape(*x.shape[:2], 3, _HEADS, -1).permute(2, 0, 3, 1, 4)
        query, key, value = parts.unbind(0)
        if self.arguments.get("enable_gqa"):
            key, value = key[:, :1], value[:, :1]
        found = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, **self.arguments
        )
        # A product with what follows from weights alone is none of two activations.
        return found.transpose(1, 2).flatten(2) + (x @ (self.table[0].t() @ self.table[1]))


@cache
def _transformer(*, has_products: bool) -> TracedModel:
    """Return the small transformer, which no test changes."""
    return trace_model(*networks.transformer(), has_products=has_products)


def _example() -> dict[str, Tensor]:
    return {"x": torch.randn(2, _TOKENS, _WIDTH, generator=torch.Generator().manual_seed(0))}


def layer_marks(model: onnx.ModelProto) -> list[tuple[str, str]]:
    """Return (layer, type of its node) of each node that runs one."""
    return [
        (entry.value, node.op_type)
        for node in model.graph.node
        for entry in node.metadata_props
        if entry.key == "mpsearch.layer"
    ]


def _products(traced: TracedModel) -> list[str]:
    return [layer.name for layer in traced.graph.layers if layer.op is Op.PRODUCT]


@pytest.mark.parametrize(
    ("arguments", "mask"),
    [
        ({}, None),
        ({"is_causal": True}, None),
        ({"scale": 0.7}, None),
        ({"enable_gqa": True}, None),
        ({}, torch.arange(_TOKENS)[None] <= torch.arange(_TOKENS)[:, None]),
        ({}, torch.linspace(-3, 3, _TOKENS**2).reshape(_TOKENS, _TOKENS)),
    ],
)
def test_attention_in_two_products_is_attention(
    arguments: dict[str, bool | float], mask: Tensor | None
) -> None:
    model = Attention(**arguments).eval()
    example = _example() | ({} if mask is None else {"mask": mask[None, None].repeat(2, 1, 1, 1)})
    traced = trace_model(model, example, has_products=True)
    assert _products(traced) == ["@matmul", "@matmul_1"]
    with torch.no_grad():
        torch.testing.assert_close(run(traced, example), model(**example))


def test_nothing_is_a_product_unless_asked_for() -> None:
    plain, asked = (_transformer(has_products=each) for each in (False, True))
    assert _products(plain) == []
    assert _products(asked) == ["block.self_attn@matmul", "block.self_attn@matmul_1"]
    others = [layer for layer in asked.graph.layers if layer.op is not Op.PRODUCT]
    assert [(each.name, each.macs, each.weight_shape) for each in others] == [
        (each.name, each.macs, each.weight_shape) for each in plain.graph.layers
    ]
    assert asked.graph.other_parameters == plain.graph.other_parameters
    assert set(asked.weights) == set(plain.graph.names)


def test_macs_of_attention_are_twice_the_tokens_squared_times_the_width() -> None:
    traced = trace_model(Attention(), _example(), has_products=True)
    first, second = (each for each in traced.graph.layers if each.op is Op.PRODUCT)
    samples = 2
    assert first.macs == second.macs == samples * _TOKENS**2 * _WIDTH
    assert (first.parameters, first.weight_shape) == (0, ())
    store = PrefixStore(traced, _example())
    assert store.full_macs == sum(layer.macs for layer in traced.graph.layers)


def test_products_stand_between_what_they_read_and_who_reads_them() -> None:
    graph = _transformer(has_products=True).graph
    names = {name: place for place, name in enumerate(graph.names)}
    scores, values = (names[f"block.self_attn@matmul{end}"] for end in ("", "_1"))
    fused = names["block.self_attn.in_proj_weight"]
    after = names["block.self_attn.out_proj"]
    assert {(fused, scores), (fused, values), (scores, values), (values, after)} <= set(graph.edges)
    assert (fused, after) not in graph.edges
    assert [fused, scores, values, after] == sorted([fused, scores, values, after])


def test_length_and_batch_stay_free() -> None:
    asked, plain = (_transformer(has_products=each) for each in (True, False))
    longer = {key: torch.cat([value, value], dim=1) for key, value in plain.example.items()}
    torch.testing.assert_close(run(asked, longer), run(plain, longer))


def test_each_product_is_one_node_of_the_file() -> None:
    traced = _transformer(has_products=True)
    marked = dict(layer_marks(base_onnx(traced)))
    assert set(marked) == set(traced.graph.names)
    assert {marked[name] for name in _products(traced)} == {"MatMul"}


def test_exported_programs_and_files_have_the_same_products(tmp_path: Path) -> None:
    model, example = networks.transformer()
    traced = _transformer(has_products=True)
    program = torch.export.export(model.eval(), (), example)
    again = trace_program(program, has_products=True)
    assert _products(again) == _products(traced)
    path = tmp_path / "model.onnx"
    onnx.save(base_onnx(_transformer(has_products=False)), path)
    imported = trace_onnx(load_onnx(path), example, has_products=True)
    found = [layer for layer in imported.graph.layers if layer.op is Op.PRODUCT]
    assert all(is_product_name(layer.name) for layer in found)
    assert [layer.macs for layer in found] == [
        layer.macs for layer in traced.graph.layers if layer.op is Op.PRODUCT
    ]
    assert {layer.name for layer in found} < {name for name, _ in layer_marks(base_onnx(imported))}
