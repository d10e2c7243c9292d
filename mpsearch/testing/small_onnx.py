"""A small language-model-like base ONNX file, and the same computation in NumPy.

It holds what makes export hard: layers that share an input, a bias and none, a layer whose
output is the model's, a residual addition, and a head that reads the embedding's table,
transposed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, final

import numpy as np
import onnx
from jaxtyping import Float32, Int64
from numpy import ndarray
from onnx import TensorProto, helper, numpy_helper

from mpsearch.core.formats import format_named
from mpsearch.core.graph import Layer, Op
from mpsearch.core.placement import (
    ADDITION_KEY,
    LAYER_INPUTS,
    OWN_SLOT_KEY,
    addend_keys,
    addend_quantizers,
    additions_with,
)
from mpsearch.core.plan import ActivationQuantizer, Plan
from mpsearch.export.graph_edit import LAYER_KEY
from mpsearch.quant import QUANTIZERS
from mpsearch.quant.float8 import float8_input_scale, round_to_float8
from mpsearch.quant.floating import round_to_bfloat16

ROWS: Final = 40
WIDTH: Final = 128
OUTPUTS: Final = 64
_SHAPES: Final = {
    "table": (ROWS, WIDTH),
    "left": (WIDTH, WIDTH),
    "right": (WIDTH, WIDTH),
    "out": (OUTPUTS, WIDTH),
}
_IR_VERSION: Final = 10


@final
@dataclass(frozen=True, kw_only=True)
class SmallModel:
    """Weights (outputs, inputs) by name; `head` is the table once more."""

    weights: Mapping[str, Float32[ndarray, "..."]]
    bias: Float32[ndarray, " W"]

    @property
    def layers(self) -> tuple[str, ...]:
        """Return the layers' names in order of execution."""
        return ("table", "left", "right", "out", "head")

    @property
    def additions(self) -> dict[str, str]:
        """Return the residual additions, each with the layer that it belongs to."""
        return {"right": "right"}

    def plan(
        self, assignment: Mapping[str, str], *, base: str = "fp32", placement: str = LAYER_INPUTS
    ) -> Plan:
        """Return a plan whose quantisers cover what the layers read, and what is added."""
        quantizers = {name: _quantizer(128) for name in self.layers if name != "table"}
        if placement != LAYER_INPUTS:
            # Of different ranges, so that a swap of the addends shows.
            addends = dict(zip(addend_keys("right"), map(_quantizer, (100, 160)), strict=True))
            quantizers |= addend_quantizers(
                addends, assignment=assignment, additions=self.additions
            )
        return Plan(assignment=assignment, base=base, placement=placement, quantizers=quantizers)

    def inputs(self, batch: int = 2, length: int = 5) -> dict[str, Int64[ndarray, "B S"]]:
        """Return row numbers at random."""
        generator = np.random.default_rng(batch * 100 + length)
        return {"ids": generator.integers(0, ROWS, (batch, length))}

    def forward(self, plan: Plan, inputs: Mapping[str, ndarray]) -> dict[str, ndarray]:
        """Return the outputs `y` and `logits` as the plan deploys them, computed in NumPy."""
        rows = self._weight("table", plan)[inputs["ids"]]
        left = np.tanh(self._linear(rows, "left", plan=plan) + self.bias)
        right = self._linear(rows, "right", plan=plan)
        if plan.placement != LAYER_INPUTS and additions_with(plan.quantizers):
            own, other = (plan.quantizers[key] for key in addend_keys("right"))
            right, left = _through_codes(right, own), _through_codes(left, other)
        hidden = left + right
        return {
            "y": self._linear(hidden, "out", plan=plan),
            "logits": self._linear(hidden, "head", plan=plan),
        }

    def onnx(self) -> onnx.ModelProto:
        """Return the base file."""
        node = helper.make_node
        nodes = [
            _mark(node("Gather", ["table", "ids"], ["rows"], name="n_table"), "table"),
            _mark(node("MatMul", ["rows", "left"], ["l"], name="n_left"), "left"),
            node("Add", ["l", "bias"], ["lb"], name="n_bias"),
            node("Tanh", ["lb"], ["lt"], name="n_tanh"),
            _mark(node("MatMul", ["rows", "right"], ["r"], name="n_right"), "right"),
            _marked_addition(node("Add", ["lt", "r"], ["hidden"], name="n_add")),
            _mark(node("MatMul", ["hidden", "out"], ["y"], name="n_out"), "out"),
            node("Transpose", ["table"], ["table_t"], name="n_transpose", perm=[1, 0]),
            _mark(node("MatMul", ["hidden", "table_t"], ["logits"], name="n_head"), "head"),
        ]
        arrays = {name: self.weights[name].T for name in ("left", "right", "out")}
        arrays |= {"table": self.weights["table"], "bias": self.bias}
        value = helper.make_tensor_value_info
        graph = helper.make_graph(
            nodes,
            "small",
            [value("ids", TensorProto.INT64, ["batch", "length"])],
            [
                value("y", TensorProto.FLOAT, ["batch", "length", OUTPUTS]),
                value("logits", TensorProto.FLOAT, ["batch", "length", ROWS]),
            ],
            initializer=[
                numpy_helper.from_array(np.ascontiguousarray(array), name)
                for name, array in arrays.items()
            ],
        )
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=_IR_VERSION
        )

    def _weight(self, layer: str, plan: Plan) -> Float32[ndarray, "O I"]:
        weight = self.weights["table" if layer == "head" else layer]
        number = format_named(plan.assignment[layer]).weight
        return weight if number.is_plain else QUANTIZERS[number.kind].fake_quantise(weight, number)

    def _linear(self, x: Float32[ndarray, "..."], layer: str, *, plan: Plan) -> ndarray:
        number = format_named(plan.assignment[layer])
        if plan.base == "bf16":  # as layers read it, which decides about codes at the borders
            x = round_to_bfloat16(x)
        activation = number.activation
        if activation is None or activation.is_plain:
            pass
        elif activation.dynamic:
            low, high = min(x.min(), np.float32(0)), max(x.max(), np.float32(0))
            step = np.float32(high - low) / np.float32(255)
            zero = np.rint(-low / step)
            x = (((np.rint(x / step) + zero).clip(0, 255) - zero) * step).astype(np.float32)
        elif activation.kind == "floating":
            step = np.float32(float8_input_scale(plan.quantizers[layer]))
            x = round_to_float8(x / step) * step
        else:
            x = _through_codes(x, plan.quantizers[layer])
        product: ndarray = x @ self._weight(layer, plan).T
        return product


def small_model(seed: int = 0) -> SmallModel:
    """Return the model with weights at random."""
    generator = np.random.default_rng(seed)
    weights = {
        name: (generator.standard_normal(shape) / np.sqrt(WIDTH)).astype(np.float32)
        for name, shape in _SHAPES.items()
    }
    return SmallModel(
        weights=weights | {"table": weights["table"] * np.float32(np.sqrt(WIDTH))},
        bias=generator.standard_normal(WIDTH).astype(np.float32),
    )


def small_layers() -> tuple[Layer, ...]:
    """Return one layer of each kind, at shapes for which every runtime has its usual kernel."""
    return (
        Layer(
            name="linear", op=Op.LINEAR, weight_shape=(64, 128), input_shape=(1, 8, 128),
            output_shape=(1, 8, 64), macs=65536, inputs_from="x",
        ),
        Layer(
            name="embedding", op=Op.EMBEDDING, weight_shape=(96, 64), input_shape=(1, 8),
            output_shape=(1, 8, 64), macs=0, inputs_from="ids",
        ),
        Layer(
            name="conv", op=Op.CONV, weight_shape=(32, 16, 3, 3), input_shape=(1, 16, 12, 12),
            output_shape=(1, 32, 6, 6), macs=165888, inputs_from="x",
        ),
    )  # fmt: skip


def _quantizer(zero_point: int) -> ActivationQuantizer:
    scale = float(np.float32(8 / 255))
    return ActivationQuantizer(
        scale=scale,
        zero_point=zero_point,
        low=-zero_point * scale,
        high=(255 - zero_point) * scale,
        method="minmax",
        samples=1,
    )


def _through_codes(x: Float32[ndarray, "..."], q: ActivationQuantizer) -> Float32[ndarray, "..."]:
    scale = np.float32(q.scale)
    codes = np.clip(np.rint(x / scale) + q.zero_point, 0, 255)
    real: ndarray = ((codes - q.zero_point) * scale).astype(np.float32)
    return real


def _marked_addition(node: onnx.NodeProto) -> onnx.NodeProto:
    node.metadata_props.add(key=ADDITION_KEY, value="right")
    node.metadata_props.add(key=OWN_SLOT_KEY, value="1")
    return node


def _mark(node: onnx.NodeProto, layer: str) -> onnx.NodeProto:
    node.metadata_props.add(key=LAYER_KEY, value=layer)
    return node
