"""The base file computes what the model computes, and every layer is marked in it."""

from functools import cache
from typing import final

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from transformers import T5Config, T5ForConditionalGeneration

from mpsearch.errors import ModelError
from mpsearch.testing import networks
from mpsearch.tracing import TracedModel, base_onnx, trace_model
from mpsearch.tracing.base_onnx import LAYER_KEY


def _marks(model: onnx.ModelProto) -> list[tuple[str, str]]:
    return [
        (each.value, node.op_type)
        for node in model.graph.node
        for each in node.metadata_props
        if each.key == LAYER_KEY
    ]


@cache
def _exported(network: networks.Network) -> tuple[TracedModel, onnx.ModelProto]:
    traced = trace_model(*network())
    return traced, base_onnx(traced)


@pytest.mark.parametrize(
    "network",
    [
        networks.forms,
        networks.convolutions,
        networks.upscaling,
        networks.transformer,
        networks.wrapped,
    ],
)
def test_every_call_of_a_layer_is_marked_and_the_numbers_agree(
    network: networks.Network,
) -> None:
    traced, file = _exported(network)
    onnx.checker.check_model(file)
    marks = _marks(file)
    for layer in traced.graph.layers:
        assert [name for name, _ in marks].count(layer.name) == layer.calls
        kinds = {
            "embedding": {"Gather"}, "conv": {"Conv"}, "conv_transpose": {"ConvTranspose"},
            "linear": {"MatMul", "Gemm"},
        }  # fmt: skip
        assert {kind for name, kind in marks if name == layer.name} <= kinds[layer.op]
    _assert_equal_numbers(file, traced)


def test_attention_whose_views_rely_on_its_kernel_is_written_apart() -> None:
    config = T5Config(  # type: ignore[call-arg]  # what transformers declares is not all it takes
        vocab_size=20, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, use_cache=False,
        decoder_start_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    ids = torch.tensor([[3, 4, 5, 6, 7], [8, 9, 1, 2, 3]])
    example = {"input_ids": ids, "decoder_input_ids": ids[:, :3]}
    traced = trace_model(_Logits(T5ForConditionalGeneration(config)).eval(), example)
    _assert_equal_numbers(base_onnx(traced), traced)


@final
class _Logits(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, decoder_input_ids: Tensor) -> Tensor:
        logits: Tensor = self.model(input_ids=input_ids, decoder_input_ids=decoder_input_ids).logits
        return logits


def _assert_equal_numbers(file: onnx.ModelProto, traced: TracedModel) -> None:
    session = onnxruntime.InferenceSession(file.SerializeToString())
    # More samples than in the example: the batch is free in the file too.
    batch = {name: torch.cat([value, value]) for name, value in traced.example.items()}
    found = session.run(
        list(traced.output_names), {name: value.numpy() for name, value in batch.items()}
    )
    with torch.no_grad():
        wanted = torch.fx.Interpreter(traced.module).run(
            *batch.values(), enable_io_processing=False
        )
    for ours, theirs in zip(wanted, found, strict=True):
        np.testing.assert_allclose(theirs, ours.numpy(), atol=1e-5, rtol=1e-4)


def test_batch_norm_is_folded_and_the_mark_survives() -> None:
    _, file = _exported(networks.convolutions)
    assert "BatchNormalization" not in {node.op_type for node in file.graph.node}


def test_a_graph_without_program_is_refused() -> None:
    traced, _ = _exported(networks.wrapped)
    bare = TracedModel(**{**vars(traced), "program": None})
    with pytest.raises(ModelError, match="not traced from a torch module"):
        base_onnx(bare)
