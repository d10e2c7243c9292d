"""The executable of a plan: one ONNX file with explicit QuantizeLinear and DequantizeLinear.

Only the marked layer nodes are edited. A weight becomes whole-number codes behind
DequantizeLinear; the input of a w8a8 or fp8 layer passes QuantizeLinear and DequantizeLinear, one
whose range is found at run time DynamicQuantizeLinear. The base precision is a setting of the
runtime and leaves no trace in the graph.
"""

import json
from dataclasses import dataclass, field
from typing import ClassVar, Final, final

import numpy as np
import onnx
from numpy import ndarray
from onnx import helper, numpy_helper

from mpsearch.core.files import to_json
from mpsearch.core.formats import Format, format_named
from mpsearch.core.graph import Op, second_input
from mpsearch.core.placement import ADDITION_KEY, LAYER_INPUTS, OWN_SLOT_KEY, PLACEMENTS
from mpsearch.core.plan import ActivationQuantizer, Plan
from mpsearch.errors import FormatError, PlanError
from mpsearch.export.exporter import AbstractExporter
from mpsearch.export.graph_edit import (
    LAYER_KEY,
    PART_KEY,
    LayerNode,
    layer_nodes,
    metadata,
    remove_unused_,
)
from mpsearch.export.quantised_weights import (
    OP_OF,
    WeightStore,
    check_takes,
    input_numbers,
    is_dynamic,
    product_numbers,
)
from mpsearch.export.residual_adds import quantise_additions_
from mpsearch.quant.smoothing import smoothing_factors

PLAN_KEY: Final = "mpsearch.plan"
SETTINGS_KEY: Final = "mpsearch.settings"
WORKLOADS_KEY: Final = "mpsearch.workloads"
_DOMAIN: Final = ("", "ai.onnx")
# OpenVINO widens a dequantised 8-bit table to f32 as soon as any input is quantised, so rows of
# 8 bits are gathered as codes. Tables of 4 bits stay small, and gather faster dequantised.
_GATHERED_BITS: Final = 8
_OPSET: Final = 21  # the first with 4-bit integers and blocked dequantisation
_IR_VERSION: Final = 10  # the first that holds them
_MARKS: Final = frozenset({LAYER_KEY, ADDITION_KEY, OWN_SLOT_KEY})


@final
@dataclass(frozen=True, kw_only=True)
class QdqOnnx(AbstractExporter):
    """Explicit QDQ ONNX, opset 21, with the plan and its settings in `metadata_props`."""

    name: ClassVar[str] = "qdq_onnx"
    placements: ClassVar[frozenset[str]] = frozenset(PLACEMENTS)

    def _export(self, base: onnx.ModelProto, plan: Plan) -> onnx.ModelProto:
        model = onnx.ModelProto()
        model.CopyFrom(base)
        _raise_opset_(model)
        edit = _Edit(model=model, plan=plan, weights=WeightStore(model=model))
        for found in layer_nodes(model):
            format_ = format_named(plan.assignment[found.layer])
            if not format_.is_floating:
                edit.quantise_(found, format_)
        edit.place_nodes_()
        if plan.placement != LAYER_INPUTS:
            quantise_additions_(model, plan)
        remove_unused_(model)
        _write_metadata_(model, plan)
        return model


@final
@dataclass(kw_only=True)
class _Edit:
    """A graph being edited: which tensors are quantised already."""

    model: onnx.ModelProto
    plan: Plan
    weights: WeightStore
    inputs: dict[tuple[str, str], str] = field(default_factory=dict)
    before: dict[int, list[onnx.NodeProto]] = field(default_factory=dict)
    after: dict[int, list[onnx.NodeProto]] = field(default_factory=dict)

    def quantise_(self, found: LayerNode, format_: Format) -> None:
        """Make one layer node read its quantised weight and, in w8a8, its quantised input."""
        node = found.node
        if found.is_product:
            self._quantise_product_(found, format_)
            return
        op = OP_OF[node.op_type]
        check_takes(format_, layer=found.layer, op=op)
        if op is Op.EMBEDDING and format_.weight.bits == _GATHERED_BITS:
            self._gather_codes_(found, format_)
            return
        exponents = self._exponents(found.layer, format_)
        weight = self.weights.quantised(found, format_.weight, exponents=exponents)
        if found.transposed:
            weight = self._transposed(weight)
        node.input[found.weight_slot] = weight
        if is_dynamic(format_):
            node.input[found.input_slot] = self._measured_input(
                node.input[found.input_slot], found=found
            )
        elif format_.activation is not None:
            numbers = input_numbers(self._quantizer(found.layer), format_.activation)
            even = self._evened_out(node.input[found.input_slot], exponents, found=found)
            node.input[found.input_slot] = self._quantised_input(even, numbers, found=found)

    def _quantise_product_(self, found: LayerNode, format_: Format) -> None:
        """Make a product of two activations read codes on both sides."""
        if not format_.is_of_inputs:
            raise FormatError(
                f"Product {found.layer!r} asks for {format_.name!r}. Expected a format of inputs "
                "alone, since it has no weight. Choose a8 or the base."
            )
        for slot, key in enumerate((found.layer, second_input(found.layer))):
            numbers = product_numbers(self._quantizer(found.layer, key=key))
            found.node.input[slot] = self._quantised_input(
                found.node.input[slot], numbers, found=found, key=key
            )

    def place_nodes_(self) -> None:
        """Put new nodes where the nodes that they serve are."""
        nodes = list(self.model.graph.node)
        ordered = list(self.weights.nodes)
        for place, node in enumerate(nodes):
            ordered.extend(self.before.get(place, []))
            ordered.append(node)
            ordered.extend(self.after.get(place, []))
        del self.model.graph.node[:]
        self.model.graph.node.extend(ordered)

    def _gather_codes_(self, found: LayerNode, format_: Format) -> None:
        """Gather rows of codes and their scales, then multiply: nothing here can be folded."""
        node, output = found.node, found.node.output[0]
        name = self.weights.stored(found, format_.weight)
        node.input[0], node.output[0] = f"{name}.codes", f"{output}.codes"
        index, last = node.input[1], f"{output}.last_axis"
        self.model.graph.initializer.append(numpy_helper.from_array(np.array([-1]), last))
        parts = [
            helper.make_node("Gather", [f"{name}.scale", index], [f"{output}.flat_scale"]),
            helper.make_node("Unsqueeze", [f"{output}.flat_scale", last], [f"{output}.scale"]),
            helper.make_node(
                "Cast", [f"{output}.codes"], [f"{output}.wide"], to=onnx.TensorProto.FLOAT
            ),
            helper.make_node("Mul", [f"{output}.wide", f"{output}.scale"], [output]),
        ]
        for part in parts:
            part.name = f"{node.name}.{part.op_type.lower()}"
            part.metadata_props.add(key=PART_KEY, value=found.layer)
        self.after[self._place(node)] = parts

    def _place(self, node: onnx.NodeProto) -> int:
        return next(i for i, each in enumerate(self.model.graph.node) if each is node)

    def _transposed(self, weight: str) -> str:
        name = f"{weight}.transposed"
        if all(name not in node.output for node in self.weights.nodes):
            self.weights.nodes.append(
                helper.make_node("Transpose", [weight], [name], name=name, perm=[1, 0])
            )
        return name

    def _quantizer(self, layer: str, *, key: str | None = None) -> ActivationQuantizer:
        wanted = layer if key is None else key
        if wanted not in self.plan.quantizers:
            raise PlanError(
                f"Layer {layer!r} is in {self.plan.assignment[layer]!r} but the plan has no "
                f"quantiser for its input. Expected one among its {len(self.plan.quantizers)} "
                "quantisers. Search again with calibration data."
            )
        return self.plan.quantizers[wanted]

    def _exponents(self, layer: str, format_: Format) -> tuple[int, ...]:
        return self._quantizer(layer).exponents if format_.is_static else ()

    def _evened_out(self, tensor: str, exponents: tuple[int, ...], *, found: LayerNode) -> str:
        """Return the input divided by 2**exponents; runtimes merge it with QuantizeLinear."""
        if not exponents:
            return tensor
        name = f"{found.node.name}.smoothed"
        if all(name not in node.output for nodes in self.before.values() for node in nodes):
            inverse = 1 / smoothing_factors(exponents)
            self.model.graph.initializer.append(numpy_helper.from_array(inverse, f"{name}.by"))
            self.before.setdefault(self._place(found.node), []).append(
                helper.make_node("Mul", [tensor, f"{name}.by"], [name], name=f"{name}.mul")
            )
        return name

    def _quantised_input(
        self,
        tensor: str,
        numbers: tuple[ndarray, ndarray],
        *,
        found: LayerNode,
        key: str | None = None,
    ) -> str:
        # One pair per layer, so that bytes are a sum over layers; runtimes merge equal pairs.
        place = (tensor, found.layer if key is None else key)
        if place not in self.inputs:
            name = f"{tensor}.quantized.{len(self.inputs)}"
            scale, zero, codes = f"{name}.scale", f"{name}.zero_point", f"{name}.codes"
            self.model.graph.initializer.extend(
                map(numpy_helper.from_array, numbers, (scale, zero))
            )
            self.before.setdefault(self._place(found.node), []).extend(
                [
                    helper.make_node(
                        "QuantizeLinear", [tensor, scale, zero], [codes], name=f"{name}.quantize"
                    ),
                    helper.make_node(
                        "DequantizeLinear", [codes, scale, zero], [name], name=f"{name}.dequantize"
                    ),
                ]
            )
            self.inputs[place] = name
        return self.inputs[place]

    def _measured_input(self, tensor: str, *, found: LayerNode) -> str:
        """Return the input in codes whose range is that of the tensor, found at run time."""
        key = (tensor, found.layer)
        if key not in self.inputs:
            name = f"{tensor}.measured.{len(self.inputs)}"
            parts = [f"{name}.codes", f"{name}.scale", f"{name}.zero_point"]
            self.before.setdefault(self._place(found.node), []).extend(
                [
                    helper.make_node(
                        "DynamicQuantizeLinear", [tensor], parts, name=f"{name}.quantize"
                    ),
                    helper.make_node("DequantizeLinear", parts, [name], name=f"{name}.dequantize"),
                ]
            )
            self.inputs[key] = name
        return self.inputs[key]


def _raise_opset_(model: onnx.ModelProto) -> None:
    """Bring an older file to the opset that has 4-bit integers, keeping its marks."""
    if all(entry.domain not in _DOMAIN or entry.version >= _OPSET for entry in model.opset_import):
        return
    marks = {node.output[0]: _marks(node) for node in model.graph.node if _marks(node)}
    converted = onnx.version_converter.convert_version(model, _OPSET)
    converted.ir_version = max(converted.ir_version, _IR_VERSION)
    # The converter drops the metadata of nodes.
    for node in converted.graph.node:
        found = marks.get(node.output[0], {}) if node.output else {}
        del node.metadata_props[:]
        for key, value in found.items():
            node.metadata_props.add(key=key, value=value)
    model.CopyFrom(converted)


def _marks(node: onnx.NodeProto) -> dict[str, str]:
    return {key: value for key, value in metadata(node.metadata_props).items() if key in _MARKS}


def _write_metadata_(model: onnx.ModelProto, plan: Plan) -> None:
    kept = [entry for entry in model.metadata_props if not entry.key.startswith("mpsearch.")]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    helper.set_model_props(
        model,
        {entry.key: entry.value for entry in kept}
        | {
            PLAN_KEY: to_json(plan),
            SETTINGS_KEY: json.dumps(dict(plan.settings)),
            WORKLOADS_KEY: to_json(list(plan.workloads)),
        },
    )
