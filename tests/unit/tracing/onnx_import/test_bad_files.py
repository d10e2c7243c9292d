"""Files that are damaged or mean harm: one error that names the culprit, soon, in little room."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from mpsearch.errors import ModelError
from mpsearch.testing.onnx_files import onnx_model, saved, small_network
from mpsearch.tracing import load_onnx, trace_onnx

X = {"x": torch.zeros(2, 6)}


def refused(model: onnx.ModelProto | bytes, folder: Path, *, match: str) -> None:
    path = folder / "m.onnx"
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    with pytest.raises(ModelError, match=match):
        trace_onnx(load_onnx(path), X)


def large_network() -> onnx.ModelProto:
    """Return a model whose weight is read from disk, not from the structure."""
    weight = np.random.default_rng(0).standard_normal((6, 2000)).astype(np.float32)
    node = helper.make_node("MatMul", ["x", "wide.weight"], ["y"], name="/wide")
    return onnx_model(
        [node], inputs={"x": ["batch", 6]}, outputs=["y"], weights={"wide.weight": weight}
    )


def test_a_file_that_is_cut_off_is_refused_wherever_it_is_cut(tmp_path: Path) -> None:
    for model in (small_network(), large_network()):
        content = model.SerializeToString()
        for length in sorted({0, 1, 2, 9, 40, len(content) // 3, len(content) // 2}):
            refused(content[:length], tmp_path, match=r"cut off|empty|no graph|no ONNX|holds no")
        refused(content[:-1], tmp_path, match=r"cut off|no ONNX|Expected")


def test_noise_is_refused(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for _ in range(50):
        path = tmp_path / "noise.onnx"
        path.write_bytes(generator.bytes(200))
        with pytest.raises(ModelError):
            load_onnx(path)


def test_no_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read: No such file"):
        load_onnx(tmp_path / "none.onnx")
    with pytest.raises(ModelError, match="cannot be read"):
        load_onnx(tmp_path)


def external(location: str, **entries: str) -> onnx.ModelProto:
    model = large_network()
    (tensor,) = model.graph.initializer
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=value)
    return model


def beside(folder: Path, name: str = "w.data") -> Path:
    path = folder / name
    path.write_bytes(large_network().graph.initializer[0].raw_data)
    return path


def test_weights_beside_the_file_are_read(tmp_path: Path) -> None:
    beside(tmp_path)
    loaded = load_onnx(saved(external("w.data"), tmp_path / "m.onnx"))
    expected = numpy_helper.to_array(large_network().graph.initializer[0])
    (found,) = loaded.module.parameters()
    np.testing.assert_array_equal(found.detach(), expected)


@pytest.mark.parametrize(
    ("location", "entries", "match"),
    [
        ("absent.data", {}, "'wide.weight'.*is not there"),
        ("../w.data", {}, "'wide.weight'.*leads out"),
        ("sub/../../w.data", {}, "leads out"),
        ("/etc/passwd", {}, "leads out"),
        ("", {}, "leads out"),
        ("a" * 5000, {}, "is not there"),
        (".", {}, "no plain file"),
        ("w.data", {"offset": "8"}, "too few"),
        ("w.data", {"offset": "-8"}, "too few"),
        ("w.data", {"length": str(2**60)}, "too few"),
        ("w.data", {"length": "many"}, "no number"),
        ("w.data", {"length": "16"}, "16 bytes of numbers. Expected 48000"),
    ],
)
def test_weights_that_lie_elsewhere_are_refused(
    tmp_path: Path, location: str, entries: dict[str, str], match: str
) -> None:
    inner = tmp_path / "model"
    inner.mkdir()
    beside(tmp_path)
    beside(inner)
    refused(external(location, **entries), inner, match=match)


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_links_are_refused(tmp_path: Path, link: Callable[[Path, Path], None]) -> None:
    inner = tmp_path / "model"
    inner.mkdir()
    link(beside(tmp_path), inner / "w.data")
    refused(external("w.data"), inner, match="link")


def test_a_weight_of_absurd_shape_is_refused(tmp_path: Path) -> None:
    model = large_network()
    model.graph.initializer[0].dims[0] = 2**40
    refused(model, tmp_path, match="'wide.weight' has 48000 bytes")
    model.graph.initializer[0].dims[0] = -6
    refused(model, tmp_path, match="'wide.weight'.*none negative")


@pytest.mark.parametrize(
    "node",
    [
        helper.make_node("ConstantOfShape", ["huge"], ["big"], name="bomb"),
        helper.make_node("Expand", ["one", "huge"], ["big"], name="bomb"),
        helper.make_node("Tile", ["one", "huge"], ["big"], name="bomb"),
        helper.make_node("Range", ["zero", "many", "step"], ["big"], name="bomb"),
        helper.make_node("Pad", ["one", "pads"], ["big"], name="bomb"),
        helper.make_node("OneHot", ["zero", "many", "two"], ["big"], name="bomb"),
    ],
    ids=lambda node: node.op_type,
)
def test_absurd_shapes_are_refused_in_little_room(tmp_path: Path, node: onnx.NodeProto) -> None:
    model = large_network()
    constants = {
        "huge": np.array([2**40]), "one": np.ones(1, dtype=np.float32),
        "zero": np.array(0), "many": np.array(2**40), "step": np.array(1),
        "pads": np.array([0, 2**40]), "two": np.zeros(2, dtype=np.float32),
    }  # fmt: skip
    model.graph.initializer.extend(
        numpy_helper.from_array(a, name) for name, a in constants.items()
    )
    model.graph.node.extend([node, helper.make_node("ReduceSum", ["big"], ["total"])])
    model.graph.node.append(helper.make_node("Add", ["y", "total"], ["z"]))
    model.graph.output[0].name = "z"
    refused(model, tmp_path, match=r"'bomb'.*1099511627776|'bomb'.*1099511627777")


def test_a_circle_is_named(tmp_path: Path) -> None:
    model = large_network()
    model.graph.node.extend(
        [
            helper.make_node("Add", ["x", "b"], ["a"], name="hen"),
            helper.make_node("Neg", ["a"], ["b"], name="egg"),
        ]
    )
    refused(model, tmp_path, match="'hen' <- 'egg' <- 'hen'|'egg' <- 'hen' <- 'egg'")


def test_nodes_out_of_order_are_brought_into_order(tmp_path: Path) -> None:
    model = small_network()
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    loaded = load_onnx(saved(model, tmp_path / "m.onnx"))
    expected = load_onnx(saved(small_network(), tmp_path / "n.onnx"))
    x = torch.ones(2, 6)
    assert torch.equal(loaded.module({"x": x})["y"], expected.module({"x": x})["y"])


def test_names_given_twice_are_refused(tmp_path: Path) -> None:
    model = large_network()
    model.graph.node.append(helper.make_node("Neg", ["x"], ["y"], name="second"))
    refused(model, tmp_path, match="Node 'second'.*'y', which something else")
    for model in (large_network(), small_network()):
        model.graph.initializer.append(model.graph.initializer[0])
        refused(model, tmp_path, match="two weights called")


def test_names_that_nothing_gives_are_refused(tmp_path: Path) -> None:
    model = large_network()
    model.graph.node[0].input[0] = "nowhere"
    refused(model, tmp_path, match="Node '/wide'.*reads 'nowhere'")
    model = large_network()
    model.graph.output[0].name = "nowhere"
    refused(model, tmp_path, match="Output 'nowhere'")


@pytest.mark.parametrize("version", [0, 1, 999])
def test_an_opset_that_does_not_exist_is_refused(tmp_path: Path, version: int) -> None:
    model = large_network()
    model.opset_import[0].version = version
    refused(model, tmp_path, match=f"operator set {version}. Expected 7 to")


def test_unknown_domains_are_refused(tmp_path: Path) -> None:
    model = large_network()
    model.graph.node[0].domain = "evil.org"
    refused(model, tmp_path, match=r"evil.org.MatMul \('/wide'\)")


def test_a_way_that_depends_on_the_data_is_refused(tmp_path: Path) -> None:
    model = large_network()

    def branch(name: str) -> onnx.GraphProto:
        value = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        return helper.make_graph([helper.make_node("Neg", ["y"], [name])], "b", [], [value])

    nodes = [
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Cast", ["sum"], ["flag"], to=TensorProto.BOOL),
        helper.make_node(
            "If", ["flag"], ["z"], name="fork", then_branch=branch("p"), else_branch=branch("q")
        ),
    ]
    model.graph.node.extend(nodes)
    model.graph.output[0].name = "z"
    refused(model, tmp_path, match="Node 'fork'.*depends on the data")


def test_a_weight_that_is_not_finite_is_named(tmp_path: Path) -> None:
    model = large_network()
    weight = numpy_helper.to_array(model.graph.initializer[0]).copy()
    weight[0, 0] = np.nan
    model.graph.initializer[0].raw_data = weight.tobytes()
    refused(model, tmp_path, match="Layer '/wide' has 1 weights of 12000")


def test_a_node_that_cannot_run_is_named(tmp_path: Path) -> None:
    model = large_network()
    model.graph.node.append(helper.make_node("MatMul", ["y", "y"], ["z"], name="bad"))
    model.graph.output[0].name = "z"
    refused(model, tmp_path, match="Node 'bad'.*cannot run on")
