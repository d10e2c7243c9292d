"""Put quantised weights into an ONNX graph: whole-number codes, scales, DequantizeLinear."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, final

import ml_dtypes
import numpy as np
import onnx
from jaxtyping import Int8
from numpy import ndarray
from onnx import helper, numpy_helper

from mpsearch.core.formats import Clipping, Format, Granularity, TensorFormat
from mpsearch.core.graph import Op
from mpsearch.core.plan import ActivationQuantizer
from mpsearch.errors import FormatError
from mpsearch.export.graph_edit import LayerNode
from mpsearch.export.weight_layout import WeightLayout, layout_of
from mpsearch.quant.float8 import float8_input_scale, quantise_to_float8
from mpsearch.quant.integer import QuantisedTensor, quantise_weight
from mpsearch.quant.smoothing import smoothing_factors

# What ONNX can store a whole number of so many bits in.
STORED_AS: Final = {4: np.dtype(ml_dtypes.int4), 8: np.dtype(np.int8)}
_FLOAT8: Final = np.dtype(ml_dtypes.float8_e4m3fn)
_INPUT_BITS: Final = 8
_MIDDLE_CODE: Final = 128
OP_OF: Final = {
    "MatMul": Op.LINEAR,
    "Gemm": Op.LINEAR,
    "Conv": Op.CONV,
    "ConvTranspose": Op.CONV_TRANSPOSE,
    "Gather": Op.EMBEDDING,
}


@final
@dataclass(frozen=True, kw_only=True)
class WeightStore:
    """Quantise each initialiser at most once per format, however many nodes read it."""

    model: onnx.ModelProto
    _names: dict[tuple[str, TensorFormat, tuple[int, ...]], str] = field(default_factory=dict)
    nodes: list[onnx.NodeProto] = field(default_factory=list)

    def quantised(
        self, found: LayerNode, number: TensorFormat, *, exponents: tuple[int, ...] = ()
    ) -> str:
        """Return the name of a tensor that stands for the initialiser, quantised.

        It has the initialiser's own shape. `nodes` grows by what computes it. Columns are
        multiplied by 2**`exponents` before, where an input is divided by them.

        Raises:
            FormatError: Groups do not divide the weight.
        """
        name = self.stored(found, number, exponents=exponents)
        layout = layout_of(found)
        if all(name not in node.output for node in self.nodes):
            self.nodes.append(_dequantize(name, number, layout=layout))
        if not layout.groups:
            return name
        turned = f"{name}.turned"
        if all(turned not in node.output for node in self.nodes):
            shape = self._tensor(found).dims
            self.nodes.extend(_turned(name, turned, shape=shape, groups=layout.groups))
        return turned

    def stored(
        self, found: LayerNode, number: TensorFormat, *, exponents: tuple[int, ...] = ()
    ) -> str:
        """Add the initialisers `<name>.codes` and `<name>.scale` once, and return the name.

        Raises:
            FormatError: Groups do not divide the weight.
        """
        key = (found.initializer, number, exponents)
        if key not in self._names:
            self._names[key] = self._store(found, number, exponents=exponents)
        return self._names[key]

    def _store(self, found: LayerNode, number: TensorFormat, *, exponents: tuple[int, ...]) -> str:
        layout = layout_of(found)
        weight = layout.outputs_first(numpy_helper.to_array(self._tensor(found)))
        if exponents:
            weight = weight * smoothing_factors(exponents)
        if number.kind == "floating":
            name = f"{found.initializer}.float{number.bits}{self._own(exponents)}"
            self.model.graph.initializer.extend(_float8(name, weight, layout=layout))
            return name
        stored = quantise_weight(weight, number, axis=0, name=found.layer)
        name = f"{found.initializer}.{number.bits}bit"
        if number.group_size is not None:
            name += f".group{number.group_size}"
        if number.clipping is not Clipping.MINMAX:
            name += f".{number.clipping}"
        name += self._own(exponents)
        self.model.graph.initializer.extend(_initializers(name, stored, layout=layout))
        return name

    def _own(self, exponents: tuple[int, ...]) -> str:
        """Return what tells weights of other exponents apart."""
        return f".smoothed{len(self._names)}" if exponents else ""

    def _tensor(self, found: LayerNode) -> onnx.TensorProto:
        tensors: Sequence[onnx.TensorProto] = self.model.graph.initializer
        return next(tensor for tensor in tensors if tensor.name == found.initializer)


def input_numbers(quantizer: ActivationQuantizer, number: TensorFormat) -> tuple[ndarray, ndarray]:
    """Return scale and zero point of a layer's input as the file holds them.

    The type of the zero point is that of the codes.
    """
    if number.kind == "floating":
        scale = float8_input_scale(quantizer)
        return np.array(scale, dtype=np.float32), np.zeros((), dtype=_FLOAT8)
    zero = np.array(quantizer.zero_point, dtype=np.uint8)
    return np.array(quantizer.scale, dtype=np.float32), zero


def product_numbers(quantizer: ActivationQuantizer) -> tuple[ndarray, ndarray]:
    """Return scale and zero point of an input of a product, whose kernels take no offsets.

    Signed codes then have the zero point 0, as OpenVINO asks for.
    """
    is_signed = quantizer.zero_point == _MIDDLE_CODE
    zero = np.zeros((), np.int8) if is_signed else np.array(quantizer.zero_point, np.uint8)
    return np.array(quantizer.scale, dtype=np.float32), zero


def is_dynamic(format_: Format) -> bool:
    """Return whether inputs are codes of 8 bits whose one range is found at run time."""
    activation = format_.activation
    if activation is None or not activation.dynamic:
        return False
    return activation.granularity is Granularity.TENSOR and activation.bits == _INPUT_BITS


def check_takes(format_: Format, *, layer: str, op: Op) -> None:
    """Raise FormatError where a layer of this kind cannot be written in a format.

    The same formats as in the simulation (`mpsearch.execution`), less those that no ONNX
    tensor can hold.
    """
    if op is Op.EMBEDDING and format_.activation is not None:
        raise FormatError(
            f"Layer {layer!r} is an embedding and asks for {format_.name!r}, which quantises its "
            "input. Expected a format of weights only: an embedding reads row numbers. Choose "
            "w8 or w4."
        )
    if op.is_convolution and is_dynamic(format_):
        raise FormatError(
            f"Layer {layer!r} is a convolution and asks for {format_.name!r}. Expected a range "
            "from calibration, for which runtimes have kernels. Choose w8a8 or w8."
        )
    if format_.activation is not None and not (format_.is_static or is_dynamic(format_)):
        raise FormatError(
            f"Layer {layer!r} asks for {format_.name!r}, whose inputs are not 8-bit codes of a "
            "range for all of them. Expected plain or such inputs, which files can say. Choose "
            "w8a8, w8a8-dynamic or w8, or the runtime 'simulation'."
        )
    _check_storable(format_.weight, layer=layer, op=op)


def _check_storable(number: TensorFormat, *, layer: str, op: Op) -> None:
    if number.kind == "floating" and not number.is_plain:
        if op is Op.LINEAR:
            return
        raise FormatError(
            f"Layer {layer!r} is of kind {op.value!r} and asks for floats of {number.bits} bits. "
            "Expected a linear layer, for which runtimes have kernels. Choose w8a8 or w8."
        )
    if number.kind != "integer" or number.bits not in STORED_AS:
        raise FormatError(
            f"Layer {layer!r} asks for weights of {number.bits} bits ({number.kind}). Expected "
            f"whole numbers of {' or '.join(map(str, STORED_AS))} bits, which ONNX files can hold "
            "and runtimes run. Choose w8a8, w8, w4 or w4g128, or the runtime 'simulation'."
        )
    if not number.symmetric or number.granularity is Granularity.TENSOR:
        what = "one scale for all of it" if number.symmetric else "a zero point"
        raise FormatError(
            f"Layer {layer!r} asks for a weight with {what}. Expected symmetric codes with a scale "
            "per channel or group, which runtimes have kernels for. Choose w8 or w4, or the "
            "runtime 'simulation'."
        )
    if number.granularity is Granularity.GROUP and op is not Op.LINEAR:
        raise FormatError(
            f"Layer {layer!r} is of kind {op.value!r} and asks for weights in groups of "
            f"{number.group_size}. Expected a linear layer for groups: runtimes widen other "
            "grouped weights to full size. Choose w4 or w8, with one scale per row."
        )


def _dequantize(name: str, number: TensorFormat, *, layout: WeightLayout) -> onnx.NodeProto:
    outputs_axis = 1 if layout.inputs_first else 0
    attributes = {"axis": outputs_axis}
    if number.group_size is not None:
        attributes = {"axis": 1 - outputs_axis, "block_size": number.group_size}
    node = helper.make_node(
        "DequantizeLinear",
        [f"{name}.codes", f"{name}.scale"],
        [name],
        name=f"{name}.dequantize",
    )
    node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
    return node


def _turned(
    name: str, turned: str, *, shape: Sequence[int], groups: int
) -> tuple[onnx.NodeProto, ...]:
    """Return nodes that swap outputs and inputs within each group, which no axis says."""
    inputs, outputs, *kernel = shape
    apart = [groups, outputs, inputs // groups, *kernel]
    order = [0, 2, 1, *range(3, len(apart))]
    return (
        helper.make_node("Constant", [], [f"{turned}.apart"], value_ints=apart),
        helper.make_node("Constant", [], [f"{turned}.shape"], value_ints=list(shape)),
        helper.make_node("Reshape", [name, f"{turned}.apart"], [f"{turned}.groups"]),
        helper.make_node("Transpose", [f"{turned}.groups"], [f"{turned}.swapped"], perm=order),
        helper.make_node("Reshape", [f"{turned}.swapped", f"{turned}.shape"], [turned]),
    )


def _initializers(
    name: str, stored: QuantisedTensor, *, layout: WeightLayout
) -> tuple[onnx.TensorProto, onnx.TensorProto]:
    codes: Int8[ndarray, "..."] = stored.codes
    scale = stored.scale
    if layout.inputs_first:
        codes = codes.swapaxes(0, 1)
        scale = scale.T
    packed = np.ascontiguousarray(codes).astype(STORED_AS[stored.bits])
    return (
        numpy_helper.from_array(packed, f"{name}.codes"),
        numpy_helper.from_array(np.ascontiguousarray(scale), f"{name}.scale"),
    )


def _float8(
    name: str, weight: ndarray, *, layout: WeightLayout
) -> tuple[onnx.TensorProto, onnx.TensorProto]:
    stored = quantise_to_float8(np.asarray(weight, dtype=np.float32))
    codes = stored.numbers.swapaxes(0, 1) if layout.inputs_first else stored.numbers
    packed = np.ascontiguousarray(codes).astype(_FLOAT8)
    return (
        numpy_helper.from_array(packed, f"{name}.codes"),
        numpy_helper.from_array(stored.scale, f"{name}.scale"),
    )
