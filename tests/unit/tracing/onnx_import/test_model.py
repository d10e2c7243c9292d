"""Laws of imported files: the numbers, names and gradients of the file, at any batch."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from mpsearch.errors import DataError, ModelError
from mpsearch.testing.onnx_files import evaluated, onnx_model, saved, small_network
from mpsearch.tracing import base_onnx, load_onnx, trace_onnx

X = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))


def reference(model: onnx.ModelProto, **inputs: torch.Tensor) -> np.ndarray:
    return evaluated(model, **{name: value.numpy() for name, value in inputs.items()})


@pytest.mark.parametrize("opset", [11, 12, 13, 17, 21, 22])
def test_a_file_of_any_opset_gives_the_numbers_of_the_reference(tmp_path: Path, opset: int) -> None:
    model = small_network(opset=opset)
    found = load_onnx(saved(model, tmp_path / "m.onnx")).module({"x": X})["y"]
    np.testing.assert_allclose(found.detach(), reference(model, x=X), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("opset", [11, 21])
def test_the_traced_graph_and_its_base_file_take_any_batch(tmp_path: Path, opset: int) -> None:
    model = small_network(opset=opset)
    traced = trace_onnx(load_onnx(saved(model, tmp_path / "m.onnx")), {"x": X})
    base = base_onnx(traced)
    # The file gives its output no shape, which the checker wants of a file that is written.
    onnx.checker.check_model(base)
    for batch in (1, 2, 7):
        x = torch.randn(batch, 6)
        expected = reference(model, x=x)
        np.testing.assert_allclose(traced.module({"x": x})["y"].detach(), expected, atol=1e-5)
        np.testing.assert_allclose(reference(base, x=x), expected, atol=1e-5)


def test_layers_are_called_after_nodes_else_after_weights(tmp_path: Path) -> None:
    traced = trace_onnx(load_onnx(saved(small_network(), tmp_path / "m.onnx")), {"x": X})
    assert traced.graph.names == ("/first/MatMul", "second")
    assert traced.graph.edges == ((0, 1),)
    assert [layer.weight_shape for layer in traced.graph.layers] == [(8, 6), (4, 8)]
    marked = {
        entry.value: node.op_type
        for node in base_onnx(traced).graph.node
        for entry in node.metadata_props
    }
    assert marked == {"/first/MatMul": "MatMul", "second": "Gemm"}


def test_every_node_of_the_graph_knows_its_node_of_the_file(tmp_path: Path) -> None:
    traced = trace_onnx(load_onnx(saved(small_network(), tmp_path / "m.onnx")), {"x": X})
    nodes = [node for node in traced.module.graph.nodes if node.name.startswith("relu")]
    assert [node.meta["custom"]["onnx_node"] for node in nodes] == ["/Relu"]


def test_gradients_are_those_of_finite_differences(tmp_path: Path) -> None:
    module = load_onnx(saved(small_network(), tmp_path / "m.onnx")).module.double()
    x = X.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda value: module({"x": value})["y"], (x,))
    module({"x": x})["y"].sum().backward()
    assert all(each.grad is not None and each.grad.abs().sum() > 0 for each in module.parameters())


def test_an_if_with_a_constant_condition_is_its_branch(tmp_path: Path) -> None:
    def branch(op: str) -> onnx.GraphProto:
        value = helper.make_tensor_value_info(f"{op}_out", TensorProto.FLOAT, None)
        return helper.make_graph([helper.make_node(op, ["x"], [f"{op}_out"])], op, [], [value])

    model = small_network()
    node = helper.make_node(
        "If", ["flag"], ["bent_x"], then_branch=branch("Relu"), else_branch=branch("Neg")
    )
    model.graph.node[0].input[0] = "bent_x"
    model.graph.node.insert(0, node)
    model.graph.initializer.append(numpy_helper.from_array(np.array(False), "flag"))
    loaded = load_onnx(saved(model, tmp_path / "m.onnx"))
    assert loaded.module.graph.nodes[0].op == "Neg"
    np.testing.assert_allclose(
        loaded.module({"x": X})["y"].detach(), reference(model, x=X), atol=1e-5
    )


def test_tied_weights_stay_one_weight(tmp_path: Path) -> None:
    table = np.random.default_rng(0).standard_normal((10, 6)).astype(np.float32)
    nodes = [
        helper.make_node("Identity", ["table"], ["copy"]),
        helper.make_node("Gather", ["table", "ids"], ["vectors"], name="embed"),
        helper.make_node("Transpose", ["copy"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["vectors", "turned"], ["logits"], name="head"),
    ]
    model = onnx_model(
        nodes,
        inputs={"ids": ["batch", "length"]},
        outputs=["logits"],
        weights={"table": table},
        kinds={"ids": TensorProto.INT64},
    )
    ids = torch.tensor([[1, 2, 9], [-1, 0, 3]])
    traced = trace_onnx(load_onnx(saved(model, tmp_path / "m.onnx")), {"ids": ids})
    assert traced.graph.names == ("embed", "head")
    assert traced.graph.shared_weights == ((0, 1),)
    base = base_onnx(traced)
    assert [tensor.name for tensor in base.graph.initializer] == ["table"]
    np.testing.assert_allclose(reference(base, ids=ids), reference(model, ids=ids), atol=1e-5)


def test_a_fixed_batch_is_told(tmp_path: Path) -> None:
    loaded = load_onnx(saved(small_network(batch=3), tmp_path / "m.onnx"))
    assert loaded.batch_size == 3
    traced = trace_onnx(loaded, {"x": X})
    with pytest.raises(DataError, match=r"Input 'x' has shape \(2, 6\)"):
        traced.inputs({"x": X[:2]})
    with pytest.raises(DataError, match=r"Input 'x' has shape \(2, 6\). Expected \(3, 6\)"):
        trace_onnx(loaded, {"x": X[:2]})


def test_unknown_operators_are_listed_at_once(tmp_path: Path) -> None:
    model = small_network()
    odd = helper.make_node("Strange", ["x"], ["s1"], name="one", domain="com.shop")
    model.graph.node.extend([odd, helper.make_node("Multinomial", ["x"], ["s2"], name="two")])
    model.graph.node.append(helper.make_node("Multinomial", ["x"], ["s3"], name="three"))
    model.opset_import.append(helper.make_opsetid("com.shop", 1))
    with pytest.raises(ModelError, match=r"2 operators.*Multinomial \('two', 'three'\); com.shop"):
        load_onnx(saved(model, tmp_path / "m.onnx"))


def test_inputs_that_are_given_once_are_fixed(tmp_path: Path) -> None:
    model = onnx_model(
        [
            helper.make_node("MatMul", ["x", "w"], ["product"], name="layer"),
            helper.make_node("Mul", ["product", "gain"], ["y"]),
        ],
        inputs={"x": ["batch", 6], "gain": []},
        outputs=["y"],
        weights={"w": np.eye(6, dtype=np.float32)},
    )
    path = saved(model, tmp_path / "m.onnx")
    loaded = load_onnx(path, settings={"gain": torch.tensor(3.0)})
    assert loaded.input_names == ("x",)
    traced = trace_onnx(loaded, {"x": X})
    np.testing.assert_allclose(reference(base_onnx(traced), x=X), 3 * X, rtol=1e-6)
    with pytest.raises(ModelError, match="no input 'loss'"):
        load_onnx(path, settings={"loss": torch.tensor(3.0)})


def test_a_single_number_of_the_data_decides_a_branch(tmp_path: Path) -> None:
    def branch(op: str) -> onnx.GraphProto:
        value = helper.make_tensor_value_info(f"{op}_out", TensorProto.FLOAT, None)
        return helper.make_graph([helper.make_node(op, ["x"], [f"{op}_out"])], op, [], [value])

    nodes = [
        helper.make_node("Equal", ["rate", "usual"], ["flag"]),
        helper.make_node(
            "If", ["flag"], ["z"], then_branch=branch("Relu"), else_branch=branch("Neg")
        ),
        helper.make_node("MatMul", ["z", "w"], ["y"], name="layer"),
    ]
    model = onnx_model(
        nodes,
        inputs={"x": ["batch", 6], "rate": []},
        outputs=["y"],
        weights={"w": np.eye(6, dtype=np.float32), "usual": np.array(16000)},
        kinds={"rate": TensorProto.INT64},
    )
    loaded = load_onnx(saved(model, tmp_path / "m.onnx"))
    for rate, expected in ((16000, X.relu()), (8000, -X)):
        rates = torch.full((3,), rate)  # one for each sample, as data has them
        traced = trace_onnx(loaded, {"x": X, "rate": rates})
        assert traced.input_names == ("x",)
        torch.testing.assert_close(traced.module({"x": X})["y"], expected)
        np.testing.assert_allclose(reference(base_onnx(traced), x=X), expected, rtol=1e-6)
    with pytest.raises(DataError, match=r"'rate' is a single number.*\[8000, 16000\]"):
        trace_onnx(loaded, {"x": X, "rate": torch.tensor([8000, 16000, 8000])})


def test_numbers_of_other_sizes_are_taken_as_the_file_declares(tmp_path: Path) -> None:
    table = np.random.default_rng(0).standard_normal((10, 6)).astype(np.float32)
    model = onnx_model(
        [helper.make_node("Gather", ["table", "ids"], ["y"], name="embed")],
        inputs={"ids": ["batch", 3]},
        outputs=["y"],
        weights={"table": table},
        kinds={"ids": TensorProto.INT32},
    )
    ids = torch.tensor([[1, 2, 9], [4, 0, 3]])
    traced = trace_onnx(load_onnx(saved(model, tmp_path / "m.onnx")), {"ids": ids})
    assert base_onnx(traced).graph.input[0].type.tensor_type.elem_type == TensorProto.INT32
    np.testing.assert_allclose(traced.module({"ids": ids})["y"].detach(), table[ids])
    with pytest.raises(DataError, match=r"numbers of float32\. Expected int32"):
        trace_onnx(load_onnx(tmp_path / "m.onnx"), {"ids": ids.float()})
