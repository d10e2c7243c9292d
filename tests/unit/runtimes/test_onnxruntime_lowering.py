"""The lowered graph computes what the standard says that the explicit QDQ graph does."""

from collections import Counter
from dataclasses import replace
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy import ndarray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from mpsearch.core.plan import ActivationQuantizer, Plan
from mpsearch.errors import DeploymentError
from mpsearch.export import export_plan
from mpsearch.export.graph_edit import LAYER_KEY, metadata
from mpsearch.runtimes import RUNTIMES
from mpsearch.runtimes.onnxruntime_lowering import lowered

_SIGNED: Final = ActivationQuantizer(
    scale=8 / 255, zero_point=128, low=-4.0, high=4.0, method="minmax", samples=1
)
_POSITIVE: Final = replace(_SIGNED, scale=6 / 255, zero_point=0, low=0.0, high=6.0)
_EXACT: Final = 1e-5  # sums of the same numbers in another order


def _random(*shape: int, seed: int = 0) -> ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def _model(
    nodes: list[onnx.NodeProto],
    *,
    constants: dict[str, ndarray],
    shape: tuple[int, ...],
    outputs: tuple[str, ...] = ("y",),
    kind: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        initializer=[numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model)


def _layer(kind: str, inputs: list[str], *, output: str, **attributes: Any) -> onnx.NodeProto:  # noqa: ANN401 - attributes of ONNX
    node = helper.make_node(kind, inputs, [output], name=f"node_{output}", **attributes)
    node.metadata_props.add(key=LAYER_KEY, value=output)
    return node


def _lowered(
    model: onnx.ModelProto,
    formats: dict[str, str],
    *,
    quantizers: dict[str, ActivationQuantizer] | None = None,
    level: int = 0,
) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    given = dict.fromkeys(formats, _SIGNED) | (quantizers or {})
    explicit = export_plan(model, Plan(assignment=formats, quantizers=given))
    return explicit, lowered(explicit, accuracy_level=level)


def _distance(explicit: onnx.ModelProto, made: onnx.ModelProto, x: ndarray) -> float:
    session = onnxruntime.InferenceSession(
        made.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    expected = ReferenceEvaluator(explicit).run(None, {"x": x})
    found = session.run(None, {"x": x})
    return max(
        float(np.linalg.norm(a - b) / np.linalg.norm(b))
        for a, b in zip(found, expected, strict=True)
    )


def _kinds(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def _with_bias(kind: str) -> onnx.ModelProto:
    """Return a linear layer with a bias in each way that ONNX can write it."""
    weight, bias = _random(192, 48), _random(48, seed=1)
    if kind == "matmul":
        nodes = [
            _layer("MatMul", ["x", "w"], output="a"),
            helper.make_node("Add", ["b", "a"], ["y"], name="add"),
        ]
        return _model(nodes, constants={"w": weight, "b": bias}, shape=(5, 192))
    turned = kind == "gemm_turned"
    node = _layer("Gemm", ["x", "w", "b"], output="a", transB=int(turned))
    nodes = [node, helper.make_node("Identity", ["a"], ["y"], name="same")]
    stored = np.ascontiguousarray(weight.T) if turned else weight
    return _model(nodes, constants={"w": stored, "b": bias}, shape=(5, 192))


@pytest.mark.parametrize("kind", ["matmul", "gemm", "gemm_turned"])
@pytest.mark.parametrize(
    ("format_", "operator"),
    [("w8a8", "MatMulIntegerToFloat"), ("w8", "MatMulNBits"), ("w4", "MatMulNBits")],
)
def test_a_linear_layer_takes_its_bias_in(kind: str, format_: str, operator: str) -> None:
    explicit, made = _lowered(_with_bias(kind), {"a": format_})
    assert _kinds(made)[operator] == 1
    assert not {"Add", "Gemm", "MatMul", "DequantizeLinear"} & set(_kinds(made))
    assert _distance(explicit, made, _random(5, 192, seed=2)) < _EXACT


@pytest.mark.parametrize("inputs", [7, 16, 96, 128, 200, 384])
@pytest.mark.parametrize("format_", ["w8", "w4"])
def test_rows_of_any_length_are_blocked(inputs: int, format_: str) -> None:
    model = _model(
        [_layer("MatMul", ["x", "w"], output="y")],
        constants={"w": _random(inputs, 24)},
        shape=(3, inputs),
    )
    explicit, made = _lowered(model, {"y": format_})
    assert _distance(explicit, made, _random(3, inputs, seed=1)) < _EXACT


def test_groups_keep_their_own_scales() -> None:
    weight = _random(256, 24)
    weight[128:] *= 100  # what one scale per row would ruin
    model = _model(
        [_layer("MatMul", ["x", "w"], output="y")], constants={"w": weight}, shape=(3, 256)
    )
    explicit, made = _lowered(model, {"y": "w4g128"})
    x = _random(3, 256, seed=1)
    assert _distance(explicit, made, x) < _EXACT
    x[:, 128:] = 0  # the small group alone
    assert _distance(explicit, made, x) < _EXACT


def test_inputs_are_quantised_on_the_fly_at_level_four_alone() -> None:
    model = _with_bias("matmul")
    x = _random(5, 192, seed=2)
    exact = _distance(*_lowered(model, {"a": "w8"}, level=0), x)
    assert exact < _EXACT < _distance(*_lowered(model, {"a": "w8"}, level=4), x) < 0.02


def test_an_addition_that_others_read_too_is_left() -> None:
    weight, bias = _random(64, 64), _random(64, seed=1)
    nodes = [
        _layer("MatMul", ["x", "w"], output="a"),
        helper.make_node("Add", ["a", "b"], ["y"], name="add"),
        helper.make_node("Tanh", ["a"], ["z"], name="bend"),
    ]
    model = _model(nodes, constants={"w": weight, "b": bias}, shape=(2, 64), outputs=("y", "z"))
    explicit, made = _lowered(model, {"a": "w8a8"})
    assert _kinds(made)["Add"] == 1
    assert _distance(explicit, made, _random(2, 64, seed=2)) < _EXACT


@pytest.mark.parametrize(("operator", "size"), [("Mul", 64), ("Add", 1)])
def test_what_follows_is_a_bias_only_where_it_adds_one_number_per_output(
    operator: str, size: int
) -> None:
    nodes = [
        _layer("MatMul", ["x", "w"], output="a"),
        helper.make_node(operator, ["a", "b"], ["y"], name="next"),
    ]
    constants = {"w": _random(64, 64), "b": _random(size, seed=1)}
    explicit, made = _lowered(_model(nodes, constants=constants, shape=(2, 64)), {"a": "w8a8"})
    assert _kinds(made)[operator] == 1
    assert _distance(explicit, made, _random(2, 64, seed=2)) < _EXACT


@pytest.mark.parametrize("change", [{"alpha": 0.5}, {"beta": 2.0}])
def test_a_scaled_gemm_is_left(change: dict[str, float]) -> None:
    node = _layer("Gemm", ["x", "w", "b"], output="y", **change)
    constants = {"w": _random(64, 64), "b": _random(64, seed=1)}
    explicit, made = _lowered(_model([node], constants=constants, shape=(2, 64)), {"y": "w8a8"})
    assert _kinds(made)["Gemm"] == 1
    assert _distance(explicit, made, _random(2, 64, seed=2)) < _EXACT


def test_equal_quantisers_of_one_tensor_are_merged_and_others_are_not() -> None:
    nodes = [_layer("MatMul", ["x", f"w{n}"], output=f"y{n}") for n in range(3)]
    model = _model(
        nodes,
        constants={f"w{n}": _random(32, 32, seed=n) for n in range(3)},
        shape=(4, 32),
        outputs=("y0", "y1", "y2"),
    )
    other = replace(_SIGNED, scale=0.5)
    formats = {f"y{n}": "w8a8" for n in range(3)}
    explicit, made = _lowered(model, formats, quantizers={"y2": other})
    assert _kinds(explicit)["QuantizeLinear"] == 3
    assert _kinds(made)["QuantizeLinear"] == 2
    assert _distance(explicit, made, _random(4, 32, seed=5)) < _EXACT


@pytest.mark.parametrize("width", [16, 24, 128, 200])
def test_rows_of_four_bits_are_gathered(width: int) -> None:
    table = _random(30, width)
    model = _model(
        [_layer("Gather", ["table", "x"], output="y")],
        constants={"table": table},
        shape=(2, 3),
        kind=TensorProto.INT64,
    )
    explicit, made = _lowered(model, {"y": "w4"})
    assert _kinds(made) == {"GatherBlockQuantized": 1}
    assert _distance(explicit, made, np.array([[0, 29, 3], [7, 7, 1]])) < _EXACT


def _convolutions(
    bends: tuple[str, ...], *, groups: int = 1, residual: bool = False
) -> onnx.ModelProto:
    constants: dict[str, ndarray] = {
        "w0": _random(16, 8 // groups, 3, 3),
        "b0": _random(16, seed=1),
        "w1": _random(4, 16, 1, 1, seed=2),
        "zero": np.array(0, dtype=np.float32),
        "six": np.array(6, dtype=np.float32),
    }  # fmt: skip
    nodes = [
        _layer(
            "Conv", ["x", "w0", "b0"], output="c0",
            kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], group=groups,
        )
    ]  # fmt: skip
    tensor = "c0"
    for place, bend in enumerate(bends):
        inputs = [tensor, "zero", "six"] if bend == "Clip" else [tensor]
        nodes.append(helper.make_node(bend, inputs, [f"bent{place}"], name=f"bend{place}"))
        tensor = f"bent{place}"
    nodes.append(_layer("Conv", [tensor, "w1"], output="c1", kernel_shape=[1, 1]))
    outputs = ("c1", tensor) if residual else ("c1",)
    return _model(nodes, constants=constants, shape=(2, 8, 9, 9), outputs=outputs)


@pytest.mark.parametrize("groups", [1, 8])
@pytest.mark.parametrize(
    ("bends", "second", "is_fused"),
    [
        ((), _SIGNED, True),
        (("Relu",), _POSITIVE, True),
        (("Clip",), _POSITIVE, True),
        (("Relu",), _SIGNED, False),  # its range holds negative numbers
        (("Clip",), replace(_POSITIVE, scale=9 / 255), False),  # and this one more than six
        (("Tanh",), _SIGNED, False),
    ],
)
def test_a_convolution_makes_codes_where_its_quantiser_cuts_as_the_bend_does(
    bends: tuple[str, ...], second: ActivationQuantizer, groups: int, *, is_fused: bool
) -> None:
    model = _convolutions(bends, groups=groups)
    explicit, made = _lowered(
        model, {"c0": "w8a8", "c1": "w8a8"}, quantizers={"c0": _SIGNED, "c1": second}
    )
    assert _kinds(made)["QLinearConv"] == int(is_fused)
    assert _kinds(made)["ConvInteger"] == 2 - int(is_fused)
    # A sum that falls between two codes may round to either: one code of some inputs.
    assert _distance(explicit, made, _random(2, 8, 9, 9, seed=3)) < 0.01


def test_a_convolution_whose_output_others_read_makes_exact_sums() -> None:
    model = _convolutions(("Relu",), residual=True)
    explicit, made = _lowered(model, {"c0": "w8a8", "c1": "w8a8"}, quantizers={"c1": _POSITIVE})
    assert "QLinearConv" not in _kinds(made)
    assert _distance(explicit, made, _random(2, 8, 9, 9, seed=3)) < 0.01


@pytest.mark.parametrize("smallest", [0.0, 1e-12, 1e-7])
def test_a_bias_that_dwarfs_its_weights_is_kept(smallest: float) -> None:
    model = _convolutions(("Relu",))
    weight = numpy_helper.to_array(model.graph.initializer[0]).copy()
    weight[3] = smallest  # a channel that does nothing but for its bias
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "w0"))
    explicit, made = _lowered(model, {"c0": "w8a8", "c1": "w8a8"}, quantizers={"c1": _POSITIVE})
    assert _kinds(made)["QLinearConv"] == 1
    assert _distance(explicit, made, _random(2, 8, 9, 9, seed=3)) < 0.01
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in made.graph.initializer}
    stored = constants["node_c0.codes"][3] * constants["node_c0.scale"][3]
    bias = numpy_helper.to_array(model.graph.initializer[1])[3]
    # A step of the raised scale times one of the input is 2^-30 of the bias.
    assert np.abs(stored - weight[3]).max() <= max(abs(bias) * 2.0**-30 / _SIGNED.scale, 1e-9)


def test_a_convolution_of_small_weights_alone_stays_as_it_is() -> None:
    explicit, made = _lowered(_convolutions(("Relu",)), {"c0": "w8", "c1": "fp32"})
    assert _kinds(made) == _kinds(explicit)


def test_marks_and_names_stay() -> None:
    model = _convolutions(("Relu",))
    _, made = _lowered(model, {"c0": "w8a8", "c1": "w8a8"}, quantizers={"c1": _POSITIVE})
    marks = {metadata(node.metadata_props).get(LAYER_KEY): node.name for node in made.graph.node}
    assert marks["c0"] == "node_c0"
    assert marks["c1"] == "node_c1"


def test_the_given_model_is_left_alone() -> None:
    explicit, _ = _lowered(_with_bias("gemm"), {"a": "w8a8"})
    before = explicit.SerializeToString(deterministic=True)
    lowered(explicit, accuracy_level=4)
    assert explicit.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("readers", [1, 2])
def test_ranges_found_at_run_time_are_those_of_the_standard(readers: int) -> None:
    names = tuple(f"y{place}" for place in range(readers))
    nodes = [_layer("MatMul", ["x", f"w{name}"], output=name) for name in names]
    constants = {f"w{name}": _random(24, 16, seed=place) for place, name in enumerate(names)}
    model = _model(nodes, constants=constants, shape=(5, 24), outputs=names)
    plan = Plan(assignment=dict.fromkeys(names, "w8a8-dynamic"), runtime="onnxruntime")
    file = export_plan(model, plan)
    changed = lowered(file, accuracy_level=4)
    kinds = Counter(node.op_type for node in changed.graph.node)
    assert kinds == {"DynamicQuantizeLinear": 1, "MatMulIntegerToFloat": readers}
    runtime = RUNTIMES["onnxruntime"]
    built = runtime.build(file, settings=runtime.settings("fp32"))
    built.assert_kernels(plan)
    for x in (_random(5, 24, seed=7), 100 * _random(5, 24, seed=8), np.abs(_random(5, 24)) + 3):
        expected = ReferenceEvaluator(file).run(None, {"x": x})
        for name, numbers in zip(names, expected, strict=True):
            found = built.run({"x": x})[name]
            assert np.abs(found - numbers).max() < _EXACT * np.abs(numbers).max()


def test_an_input_of_zeros_gives_zeros() -> None:
    model = _model(
        [_layer("MatMul", ["x", "w"], output="y")], constants={"w": _random(24, 16)}, shape=(5, 24)
    )
    file = export_plan(model, Plan(assignment={"y": "w8a8-dynamic"}, runtime="onnxruntime"))
    runtime = RUNTIMES["onnxruntime"]
    built = runtime.build(file, settings=runtime.settings("fp32"))
    found = built.run({"x": np.zeros((5, 24), dtype=np.float32)})["y"]
    np.testing.assert_array_equal(found, np.zeros((5, 16)))


def test_a_float_plan_is_not_taken_for_one_of_codes() -> None:
    model = _model(
        [_layer("MatMul", ["x", "w"], output="y")], constants={"w": _random(24, 16)}, shape=(5, 24)
    )
    runtime = RUNTIMES["onnxruntime"]
    built = runtime.build(model, settings=runtime.settings("fp32"))
    with pytest.raises(DeploymentError, match="u8 inputs"):
        built.assert_kernels(Plan(assignment={"y": "w8a8-dynamic"}, runtime="onnxruntime"))
