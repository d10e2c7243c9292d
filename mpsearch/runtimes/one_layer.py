"""Find what a runtime does with a layer in a format: build a file with that layer and run it."""

import logging
from typing import Final

import numpy as np
import onnx
from numpy import ndarray
from onnx import TensorProto, helper, numpy_helper

from mpsearch.core.formats import Format, format_named
from mpsearch.core.graph import Layer, Op
from mpsearch.core.hardware import Support, Workload
from mpsearch.core.plan import ActivationQuantizer, Plan
from mpsearch.errors import DeploymentError, FormatError
from mpsearch.export import export_plan
from mpsearch.export.graph_edit import LAYER_KEY
from mpsearch.export.quantised_weights import is_dynamic
from mpsearch.export.weight_layout import swapped_in_groups
from mpsearch.quant import QUANTIZERS
from mpsearch.quant.float8 import float8_input_scale, round_to_float8
from mpsearch.runtimes.comparison import compare_numbers
from mpsearch.runtimes.kernel_check import found_support
from mpsearch.runtimes.one_product import try_product
from mpsearch.runtimes.runtime import AbstractExecutable, AbstractRuntime

_LOG = logging.getLogger("mpsearch.runtimes")
_OPSET: Final = 21
_IR_VERSION: Final = 10  # the first that knows opset 21
_INPUT: Final = "input"
_NEIGHBOUR: Final = "neighbour"
_SCALE: Final = 8.0 / 255  # inputs of the trial are cut at four standard deviations
_ZERO_POINT: Final = 128
_CODES: Final = 255
_QUANTIZER: Final = ActivationQuantizer(
    scale=_SCALE, zero_point=_ZERO_POINT, low=-4.0, high=4.0, method="trial", samples=1
)
# Kernels add in other orders, in bf16, or quantise inputs in groups of their own: under 3 %.
# Numbers that are wrong (a transposed scale, a dropped zero point) are off by 20 % and more.
_LARGEST_ERROR: Final = 0.05
_MOST_ROWS: Final = 2048
_RANKED: Final = (Support.NONE, Support.STORAGE, Support.NATIVE)


def try_layer(
    runtime: AbstractRuntime, layer: Layer, *, format_name: str, base: str, mixes: bool = True
) -> Support:
    """Return the support found: the worse of alone and beside a layer of 8-bit inputs.

    A runtime may treat weights in another way once any input of the file is quantised. A
    layer that does not compile or run, or whose numbers are off or not finite, has no support,
    and a log says why. Without `mixes` the runtime treats each layer by itself, and alone is all.
    """
    if layer.op is Op.PRODUCT:
        return try_product(runtime, layer, format_name=format_name, base=base)
    weight, inputs = _numbers(layer)
    format_ = format_named(format_name)
    # A layer with 8-bit inputs of its own needs no neighbour that has them.
    neighbours = (False,) if format_.activation is not None or not mixes else (False, True)
    try:
        built = [
            _build(
                runtime, layer, weight=weight, plan=_plan(layer, format_, base=base, beside=beside)
            )
            for beside in neighbours
        ]
        outputs = [{"output": each.run({_INPUT: inputs})["output"]} for each in built]
    except (DeploymentError, FormatError) as error:
        # That a layer cannot take a format is known from its shape and no finding.
        level = logging.DEBUG if isinstance(error, FormatError) else logging.INFO
        _LOG.log(level, "No support for %s in %s: %s", layer.signature, format_name, error)
        return Support.NONE
    expected = _expected(runtime, layer, format_=format_, weight=weight, inputs=inputs)
    distance = max(_distance(each, expected) for each in outputs)
    if distance > _LARGEST_ERROR:
        _LOG.warning(
            "No support for %s in %s under base %s: its output is off by %.2g.",
            *(layer.signature, format_name, base, distance),
        )
        return Support.NONE
    kernels = [executable.kernels().get(layer.name) for executable in built]
    found = (
        Support.NONE if kernel is None else found_support(format_, kernel, base=base)
        for kernel in kernels
    )
    return min(found, key=_RANKED.index)


def _distance(outputs: dict[str, ndarray], expected: dict[str, ndarray]) -> float:
    """Return the relative error; infinite where a number of the run is not finite."""
    if not all(np.isfinite(array).all() for array in outputs.values()):
        return float("inf")
    return compare_numbers(outputs, expected).relative_error


def _build(
    runtime: AbstractRuntime, layer: Layer, *, weight: ndarray, plan: Plan
) -> AbstractExecutable:
    model = one_layer_onnx(layer, weight, neighbour=_NEIGHBOUR in plan.assignment)
    return runtime.build(
        export_plan(model, plan), settings=runtime.settings(plan.base), workload=_workload(layer)
    )


def _workload(layer: Layer) -> Workload:
    return Workload(name="trial", shapes={_INPUT: layer.input_shape})


def _expected(
    runtime: AbstractRuntime, layer: Layer, *, format_: Format, weight: ndarray, inputs: ndarray
) -> dict[str, ndarray]:
    """Run the layer in fp32 on weights and inputs that were quantised and put back."""
    number = format_.weight
    stored = QUANTIZERS[number.kind].fake_quantise(weight, number)
    if is_dynamic(format_):
        scale = np.float32(np.ptp(inputs)) / np.float32(_CODES)
        zero = np.rint(-inputs.min() / scale)
        inputs = ((np.rint(inputs / scale) + zero).clip(0, _CODES) - zero) * scale
    elif format_.activation is not None and format_.activation.kind == "floating":
        step = np.float32(float8_input_scale(_QUANTIZER))
        inputs = round_to_float8(inputs / step) * step
    elif format_.activation is not None and layer.op is not Op.EMBEDDING:
        codes = np.clip(np.rint(inputs / np.float32(_SCALE)) + _ZERO_POINT, 0, 255)
        inputs = ((codes - _ZERO_POINT) * np.float32(_SCALE)).astype(np.float32)
    plain = runtime.build(
        one_layer_onnx(layer, stored, neighbour=False),
        settings=runtime.settings("fp32"),
        workload=_workload(layer),
    )
    return plain.run({_INPUT: inputs})


def _numbers(layer: Layer) -> tuple[ndarray, ndarray]:
    """Return a weight and inputs at random; a table gets no more rows than show the kernel."""
    generator = np.random.default_rng(0)
    shape = layer.weight_shape
    if layer.op is Op.EMBEDDING:
        shape = (min(shape[0], _MOST_ROWS), *shape[1:])
    weight = generator.standard_normal(shape, dtype=np.float32)
    if layer.op is Op.EMBEDDING:
        return weight, generator.integers(0, shape[0], layer.input_shape)
    return weight, generator.standard_normal(layer.input_shape, dtype=np.float32).clip(-4, 3.9)


def _plan(layer: Layer, format_: Format, *, base: str, beside: bool) -> Plan:
    return Plan(
        assignment={layer.name: format_.name} | ({_NEIGHBOUR: "w8a8"} if beside else {}),
        base=base,
        quantizers={layer.name: _QUANTIZER, _NEIGHBOUR: _QUANTIZER},
    )


def one_layer_onnx(layer: Layer, weight: ndarray, *, neighbour: bool) -> onnx.ModelProto:
    """Return a base ONNX file that holds one layer, from `input` to `output`.

    With `neighbour` a small linear layer of that name follows another path to `second`.
    """
    rows = layer.op is Op.EMBEDDING
    initializers = [numpy_helper.from_array(_as_in_file(weight, layer), "weight")]
    main = _NODES[layer.op](layer)
    main.metadata_props.add(key=LAYER_KEY, value=layer.name)
    nodes = [main]
    names = ["output"]
    if neighbour:
        eye = np.eye(layer.output_shape[-1], dtype=np.float32)
        initializers.append(numpy_helper.from_array(eye, _NEIGHBOUR))
        # After a nonlinearity, so that no runtime merges the two layers.
        nodes.append(helper.make_node("Tanh", ["output"], ["bent"], name="bend"))
        second = helper.make_node("MatMul", ["bent", _NEIGHBOUR], ["second"], name="second")
        second.metadata_props.add(key=LAYER_KEY, value=_NEIGHBOUR)
        nodes.append(second)
        names.append("second")
    kind = TensorProto.INT64 if rows else TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "one_layer",
        [helper.make_tensor_value_info(_INPUT, kind, [None] * len(layer.input_shape))],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * len(layer.output_shape))
            for name in names
        ],
        initializer=initializers,
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION
    )


def _as_in_file(weight: ndarray, layer: Layer) -> ndarray:
    """Return a weight with its outputs first as the layer's node reads it."""
    if layer.op is Op.LINEAR:
        return np.ascontiguousarray(weight.T)
    if layer.op is Op.CONV_TRANSPOSE:
        groups = layer.input_shape[1] // layer.weight_shape[1]
        return np.ascontiguousarray(swapped_in_groups(weight, groups=groups))
    return np.ascontiguousarray(weight)


def _linear(layer: Layer) -> onnx.NodeProto:  # noqa: ARG001 - one of a table of functions
    return helper.make_node("MatMul", [_INPUT, "weight"], ["output"], name="layer")


def _embedding(layer: Layer) -> onnx.NodeProto:  # noqa: ARG001 - one of a table of functions
    return helper.make_node("Gather", ["weight", _INPUT], ["output"], name="layer")


def _conv(layer: Layer) -> onnx.NodeProto:
    """Guess strides and padding that lead from the input's to the output's shape."""
    kernel = layer.weight_shape[2:]
    pairs = list(zip(layer.input_shape[2:], layer.output_shape[2:], strict=True))
    strides = [max(1, round(before / after)) for before, after in pairs]
    padding = [
        max(0, (after - 1) * stride + size - before)
        for (before, after), stride, size in zip(pairs, strides, kernel, strict=True)
    ]
    return helper.make_node(
        "Conv",
        [_INPUT, "weight"],
        ["output"],
        name="layer",
        kernel_shape=list(kernel),
        strides=strides,
        pads=[pad // 2 for pad in padding] + [pad - pad // 2 for pad in padding],
        group=layer.input_shape[1] // layer.weight_shape[1],
    )


def _conv_transpose(layer: Layer) -> onnx.NodeProto:
    """Guess strides, padding and what is added that lead to the output's shape."""
    kernel = layer.weight_shape[2:]
    pairs = list(zip(layer.input_shape[2:], layer.output_shape[2:], strict=True))
    strides = [max(1, round(after / before)) for before, after in pairs]
    cut = [
        (before - 1) * stride + size - after
        for (before, after), stride, size in zip(pairs, strides, kernel, strict=True)
    ]
    begin, end = [max(0, size) // 2 for size in cut], [-(-max(0, size) // 2) for size in cut]
    return helper.make_node(
        "ConvTranspose",
        [_INPUT, "weight"],
        ["output"],
        name="layer",
        kernel_shape=list(kernel),
        strides=strides,
        pads=begin + end,
        output_padding=[max(0, -size) for size in cut],
        group=layer.input_shape[1] // layer.weight_shape[1],
    )


_NODES: Final = {
    Op.LINEAR: _linear,
    Op.EMBEDDING: _embedding,
    Op.CONV: _conv,
    Op.CONV_TRANSPOSE: _conv_transpose,
}
