"""Find what a runtime does with a product of two activations: build a file with it and run it."""

import logging
from typing import Final

import numpy as np
import onnx
from numpy import ndarray
from onnx import TensorProto, helper

from mpsearch.core.formats import format_named
from mpsearch.core.graph import Layer, second_input
from mpsearch.core.hardware import Support, Workload
from mpsearch.core.plan import ActivationQuantizer, Plan
from mpsearch.errors import DeploymentError
from mpsearch.export import export_plan
from mpsearch.export.graph_edit import LAYER_KEY
from mpsearch.runtimes.comparison import compare_numbers
from mpsearch.runtimes.kernel_check import found_support
from mpsearch.runtimes.runtime import AbstractExecutable, AbstractRuntime

_LOG = logging.getLogger("mpsearch.runtimes")
_OPSET: Final = 21
_IR_VERSION: Final = 10  # the first that knows opset 21
_INPUTS: Final = ("first", "second")
_SCALE: Final = 4.0 / 127  # inputs of the trial are cut at four standard deviations
_MIDDLE: Final = 128
_LARGEST_CODE: Final = 127
# As in `one_layer`: kernels that add in another order are far below, wrong numbers far above.
_LARGEST_ERROR: Final = 0.05


def try_product(runtime: AbstractRuntime, layer: Layer, *, format_name: str, base: str) -> Support:
    """Return the support found for a product of the layer's shapes, alone in a file.

    One that does not compile or run, or whose numbers are off or not finite, has none, and a
    log says why.
    """
    format_ = format_named(format_name)
    inputs = _numbers(layer)
    quantizers = dict.fromkeys(
        (layer.name, second_input(layer.name)),
        ActivationQuantizer(
            scale=_SCALE, zero_point=_MIDDLE, low=-4.0, high=4.0, method="trial", samples=1
        ),
    )
    plan = Plan(assignment={layer.name: format_name}, base=base, quantizers=quantizers)
    try:
        built = _built(runtime, layer, model=export_plan(one_product_onnx(layer), plan), base=base)
        found = built.run(inputs)
    except DeploymentError as error:
        _LOG.info("No support for %s in %s: %s", layer.signature, format_name, error)
        return Support.NONE
    plain = _built(runtime, layer, model=one_product_onnx(layer), base="fp32")
    distance = _distance(found, plain.run({name: _rounded(x) for name, x in inputs.items()}))
    if distance > _LARGEST_ERROR:
        _LOG.warning(
            "No support for %s in %s under base %s: its output is off by %.2g.",
            *(layer.signature, format_name, base, distance),
        )
        return Support.NONE
    kernel = built.kernels().get(layer.name)
    return Support.NONE if kernel is None else found_support(format_, kernel, base=base)


def one_product_onnx(layer: Layer) -> onnx.ModelProto:
    """Return a base ONNX file of one product, from `first` and `second` to `output`."""
    main = helper.make_node("MatMul", list(_INPUTS), ["output"], name="layer")
    main.metadata_props.add(key=LAYER_KEY, value=layer.name)
    graph = helper.make_graph(
        [main],
        "one_product",
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * len(shape))
            for name, shape in _shapes(layer).items()
        ],
        [
            helper.make_tensor_value_info(
                "output", TensorProto.FLOAT, [None] * len(layer.output_shape)
            )
        ],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION
    )


def _built(
    runtime: AbstractRuntime, layer: Layer, *, model: onnx.ModelProto, base: str
) -> AbstractExecutable:
    workload = Workload(name="trial", shapes=_shapes(layer))
    return runtime.build(model, settings=runtime.settings(base), workload=workload)


def _shapes(layer: Layer) -> dict[str, tuple[int, ...]]:
    """Return the shapes of both inputs; the second's follows from the first's and the output's."""
    second = (*layer.output_shape[:-2], layer.input_shape[-1], layer.output_shape[-1])
    return dict(zip(_INPUTS, (layer.input_shape, second), strict=True))


def _numbers(layer: Layer) -> dict[str, ndarray]:
    generator = np.random.default_rng(0)
    return {
        name: generator.standard_normal(shape, dtype=np.float32).clip(-4, 4)
        for name, shape in _shapes(layer).items()
    }


def _rounded(values: ndarray) -> ndarray:
    codes = np.rint(values / np.float32(_SCALE)).clip(-_MIDDLE, _LARGEST_CODE)
    rounded: ndarray = (codes * np.float32(_SCALE)).astype(np.float32)
    return rounded


def _distance(outputs: dict[str, ndarray], expected: dict[str, ndarray]) -> float:
    """Return the relative error; infinite where a number of the run is not finite."""
    if not all(np.isfinite(array).all() for array in outputs.values()):
        return float("inf")
    return compare_numbers(outputs, expected).relative_error
