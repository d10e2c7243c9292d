"""Laws of operators: onnx's own cases, a dynamic batch through each, and true gradients."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from benchmarks.models.node_cases import cases, run_case
from mpsearch.testing.onnx_files import evaluated, onnx_model, saved
from mpsearch.tracing import base_onnx, load_onnx, trace_onnx
from mpsearch.tracing.onnx_import.model import OnnxModel, from_structure
from mpsearch.tracing.onnx_import.operators import OPERATORS

# onnx has no case of its own for these, or of operator set 1 only.
WITHOUT_CASE = {"GlobalLpPool", "CastLike", "Not", "Scatter", "Upsample"}
IMAGE = (3, 8, 8)


def first_cases() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for case in cases():
        assert case.model is not None
        nodes, version = case.model.graph.node, case.model.opset_import[0].version
        if len(nodes) == 1 and nodes[0].op_type in OPERATORS and version >= 7:
            found.setdefault(nodes[0].op_type, case)
    return found


def test_the_first_case_of_every_operator_passes() -> None:
    chosen = first_cases()
    assert set(OPERATORS) - set(chosen) <= WITHOUT_CASE
    assert [each for each in map(run_case, chosen.values()) if each.fault] == []


def node(op: str, inputs: str = "image", **attributes: object) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(" "), ["y"], "node", **attributes)  # type: ignore[arg-type]  # the stub takes texts only


CONSTANTS: dict[str, np.ndarray] = {
    "kernel": np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32),
    "depthwise": np.random.default_rng(1).standard_normal((3, 1, 3, 3)).astype(np.float32),
    "upwards": np.random.default_rng(2).standard_normal((3, 4, 3, 3)).astype(np.float32),
    "bias": np.array([0.5, -1, 2, 0], dtype=np.float32),
    "three": np.array([0.5, -1, 2], dtype=np.float32),
    "positive": np.array([0.5, 1, 2], dtype=np.float32),
    "matrix": np.random.default_rng(3).standard_normal((4, 5)).astype(np.float32),
    "pads": np.array([0, 0, 1, 2, 0, 0, 2, 1], dtype=np.int64),
    "scales": np.array([1, 1, 2, 1.5], dtype=np.float32),
    "starts": np.array([1, -1], dtype=np.int64),
    "ends": np.array([100, -(2**40)], dtype=np.int64),
    "axes": np.array([2, 3], dtype=np.int64),
    "steps": np.array([2, -2], dtype=np.int64),
    "places": np.array([2, 0, -1], dtype=np.int64),
    "inner": np.array([0, 2, -1, 8], dtype=np.int64),
    "gates": np.random.default_rng(4).standard_normal((1, 20, 8)).astype(np.float32) / 3,
    "recurrence": np.random.default_rng(5).standard_normal((1, 20, 5)).astype(np.float32) / 3,
    "both": np.random.default_rng(6).standard_normal((1, 40)).astype(np.float32) / 3,
    "scale": np.array(0.05, dtype=np.float32),
    "zero": np.array(3, dtype=np.int8),
}  # fmt: skip
NODES = [
    node("Conv", "image kernel bias", pads=[1, 0, 2, 1], strides=[2, 1]),
    node("Conv", "image kernel bias", auto_pad="SAME_UPPER", strides=[2, 3], dilations=[1, 1]),
    node("Conv", "image depthwise three", group=3),
    node("ConvTranspose", "image upwards bias", strides=[2, 1], output_padding=[1, 0]),
    node("AveragePool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1, pads=[1, 1, 1, 1]),
    node("AveragePool", kernel_shape=[3, 2], count_include_pad=1, pads=[1, 1, 1, 0]),
    node("MaxPool", kernel_shape=[3, 2], strides=[2, 2], ceil_mode=1, pads=[1, 0, 1, 1]),
    node("BatchNormalization", "image positive three three positive"),
    node("InstanceNormalization", "image three three"),
    node("GroupNormalization", "image three three", num_groups=1),
    node("Pad", "image pads"),
    node("Pad", "image pads", mode="reflect"),
    node("Resize", "image  scales", mode="linear"),
    node("Resize", "image  scales", mode="cubic", coordinate_transformation_mode="align_corners"),
    node("Resize", "image  scales", coordinate_transformation_mode="asymmetric"),
    node("Slice", "image starts ends axes steps"),
    node("Gather", "image places", axis=2),
    node("Reshape", "image inner"),
    node("ReduceMean", "image axes", keepdims=0),
    node("ReduceLogSumExp", "image axes"),
    node("LSTM", "image_rows gates recurrence both", hidden_size=5, layout=0),
    node("CumSum", "image depth", reverse=1, exclusive=1),
]


def one_node_model(each: onnx.NodeProto) -> onnx.ModelProto:
    nodes = [each]
    weights = {name: CONSTANTS[name] for name in each.input if name in CONSTANTS}
    if "depth" in each.input:
        weights["depth"] = np.array(2)
    if "image_rows" in each.input:  # (steps, batch, inputs) of (batch, channels, steps, inputs)
        reorder = [
            helper.make_node("ReduceMean", ["image", "ones"], ["mean"], keepdims=0),
            helper.make_node("Transpose", ["mean"], ["image_rows"], perm=[1, 0, 2]),
        ]
        nodes = [*reorder, each]
        weights["ones"] = np.array([1])
    return onnx_model(nodes, inputs={"image": ["batch", *IMAGE]}, outputs=["y"], weights=weights)


@pytest.mark.parametrize("each", NODES, ids=lambda each: each.op_type)
def test_an_operator_takes_any_batch_and_has_true_gradients(
    tmp_path: Path, each: onnx.NodeProto
) -> None:
    model = one_node_model(each)
    module = load_onnx(saved(model, tmp_path / "m.onnx")).module
    program = torch.export.export(
        module,
        ({"image": torch.randn(2, *IMAGE)},),
        dynamic_shapes=({"image": {0: torch.export.Dim("batch")}},),
    )
    for batch in (2, 5):
        x = torch.randn(batch, *IMAGE, generator=torch.Generator().manual_seed(batch))
        found = program.module()({"image": x})["y"]
        expected = evaluated(model, image=x.numpy())
        np.testing.assert_allclose(found.detach(), expected, rtol=1e-4, atol=1e-5)
    x = torch.randn(2, *IMAGE, dtype=torch.float64, requires_grad=True)
    wide = module.double()
    torch.autograd.gradcheck(lambda x: wide({"image": x})["y"], (x,), fast_mode=True)


def loaded(nodes: Sequence[onnx.NodeProto], **shapes: Sequence[int | str]) -> OnnxModel:
    weights = {name: CONSTANTS[name] for each in nodes for name in each.input if name in CONSTANTS}
    model = onnx_model(nodes, inputs=shapes, outputs=["y"], weights=weights)
    constants = {name: torch.from_numpy(np.array(array)) for name, array in weights.items()}
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    return from_structure(model, constants=constants, types=types, settings={})


def quantised_network() -> list[onnx.NodeProto]:
    """Return a float layer, then quantised activations before a float layer."""
    make = helper.make_node
    return [
        make("QuantizeLinear", ["x", "scale", "zero"], ["codes"]),
        make("DequantizeLinear", ["codes", "scale", "zero"], ["back"]),
        make("MatMul", ["back", "matrix"], ["y"], name="layer"),
    ]


def test_gradients_go_straight_through_rounding_where_codes_are_not_cut_off() -> None:
    module = loaded(quantised_network(), x=["batch", 4]).module
    x = torch.tensor([[0.1, -0.2, 100.0, 0.33]], requires_grad=True)
    module({"x": x})["y"].sum().backward()
    rows = torch.from_numpy(CONSTANTS["matrix"]).sum(1)
    inside = torch.tensor([1.0, 1.0, 0.0, 1.0])
    assert x.grad is not None
    torch.testing.assert_close(x.grad, (rows * inside).unsqueeze(0))


def test_layers_behind_quantised_weights_are_not_layers_to_choose(tmp_path: Path) -> None:
    make = helper.make_node
    codes = np.random.default_rng(0).integers(-127, 128, (4, 5)).astype(np.int8)
    nodes = [
        make("DequantizeLinear", ["codes", "scale"], ["weight"]),
        make("MatMul", ["x", "weight"], ["hidden"], name="decided"),
        make("MatMul", ["hidden", "second"], ["y"], name="open"),
    ]
    weights = {"codes": codes, "scale": CONSTANTS["scale"], "second": CONSTANTS["matrix"].T.copy()}
    model = onnx_model(nodes, inputs={"x": ["batch", 4]}, outputs=["y"], weights=weights)
    traced = trace_onnx(load_onnx(saved(model, tmp_path / "m.onnx")), {"x": torch.randn(2, 4)})
    assert traced.graph.names == ("open",)
    kept = {tensor.name: tensor.data_type for tensor in base_onnx(traced).graph.initializer}
    assert kept["codes"] == TensorProto.INT8


def test_a_batch_norm_behind_a_convolution_becomes_part_of_its_weight(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    make = helper.make_node
    weights = {"kernel": CONSTANTS["kernel"]} | {
        name: np.abs(generator.standard_normal(4)).astype(np.float32)
        for name in ("gain", "shift", "mean", "variance")
    }
    nodes = [
        make("Conv", ["x", "kernel"], ["c"], name="conv"),
        make("BatchNormalization", ["c", "gain", "shift", "mean", "variance"], ["n"], epsilon=0.01),
        make("Relu", ["n"], ["y"]),
    ]
    model = onnx_model(nodes, inputs={"x": ["batch", 3, 8, 8]}, outputs=["y"], weights=weights)
    x = torch.randn(2, 3, 8, 8)
    traced = trace_onnx(load_onnx(saved(model, tmp_path / "m.onnx")), {"x": x})
    base = base_onnx(traced)
    assert [each.op_type for each in base.graph.node] == ["Conv", "Relu"]
    expected = evaluated(model, x=x.numpy())
    for found in (traced.module({"x": x})["y"].detach(), evaluated(base, x=x.numpy())):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
