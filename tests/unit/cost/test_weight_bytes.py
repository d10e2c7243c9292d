"""Bytes of a table against bytes of real exported files."""

from dataclasses import replace

import numpy as np
import onnx
import pytest

from mpsearch.core.graph import LayerGraph, Op
from mpsearch.core.plan import ActivationQuantizer, Plan
from mpsearch.cost.sampling import assignment_of, random_choices
from mpsearch.cost.weight_bytes import stored_bytes, weight_bytes_table
from mpsearch.export import export_plan, weight_bytes

FORMATS = ("fp32", "w8a8", "w8", "w4g128", "w4")


def _allowed(graph: LayerGraph) -> np.ndarray:
    plain = [name not in {"w8a8", "w4g128"} for name in FORMATS]
    return np.array(
        [plain if layer.op is Op.EMBEDDING else [True] * len(FORMATS) for layer in graph.layers]
    )


def test_the_table_equals_the_files_of_random_plans(
    graph: LayerGraph, base: onnx.ModelProto, quantizers: dict[str, ActivationQuantizer]
) -> None:
    allowed = _allowed(graph)
    table, rest = weight_bytes_table(
        graph, formats=FORMATS, allowed=allowed, base=base, base_precision="fp32"
    )
    rows = random_choices(allowed, count=12, generator=np.random.default_rng(0))
    for row in rows:
        plan = Plan(
            assignment=assignment_of(row, layers=graph.names, formats=FORMATS),
            quantizers=quantizers,
        )
        expected = weight_bytes(export_plan(base, plan))
        assert rest + table[np.arange(len(row)), row].sum() == expected


def test_what_evens_out_channels_is_counted(
    graph: LayerGraph, base: onnx.ModelProto, quantizers: dict[str, ActivationQuantizer]
) -> None:
    evened = {
        layer.name: replace(quantizers[layer.name], exponents=(1,) * layer.weight_shape[1])
        for layer in graph.layers[::2]
        if layer.op is Op.LINEAR
    }
    every = quantizers | evened
    table, rest = weight_bytes_table(
        graph,
        formats=FORMATS,
        allowed=_allowed(graph),
        base=base,
        base_precision="fp32",
        quantizers=every,
    )
    for row in random_choices(_allowed(graph), count=12, generator=np.random.default_rng(1)):
        assignment = assignment_of(row, layers=graph.names, formats=FORMATS)
        exported = export_plan(base, Plan(assignment=assignment, quantizers=every))
        assert rest + table[np.arange(len(row)), row].sum() == weight_bytes(exported)


def test_everything_else_stays_constant_and_the_base_spends_the_base_file(
    graph: LayerGraph, base: onnx.ModelProto
) -> None:
    table, rest = weight_bytes_table(
        graph, formats=FORMATS, allowed=_allowed(graph), base=base, base_precision="fp32"
    )
    biases = sum(4 * layer.weight_shape[0] for layer in graph.layers if layer.op is Op.LINEAR)
    assert rest == biases
    assert rest + table[:, 0].sum() == weight_bytes(base)


def test_stored_bytes_are_codes_and_scales(graph: LayerGraph) -> None:
    words, wide = graph.layers[0], graph.layers[4]
    assert (words.weight_shape, wide.weight_shape) == ((50, 128), (128, 256))
    assert stored_bytes(words, "w4") == 50 * 128 // 2 + 50 * 4
    assert stored_bytes(wide, "w8") == stored_bytes(wide, "w8a8") == 128 * 256 + 128 * 4
    assert stored_bytes(wide, "w4g128") == 128 * 256 // 2 + 128 * 2 * 4
    assert stored_bytes(wide, "bf16") == stored_bytes(wide, "fp32") == 128 * 256 * 4
    odd = replace(wide, weight_shape=(3, 5))
    assert stored_bytes(odd, "w4") == 8 + 3 * 4
    assert stored_bytes(odd, "w3") == 6 + 3 * 4


def test_a_shared_weight_counts_once_and_its_inputs_quantisers_each(graph: LayerGraph) -> None:
    tied = replace(graph, shared_weights=((1, 2),))
    table, _ = weight_bytes_table(
        tied, formats=FORMATS, allowed=_allowed(tied), base=None, base_precision="fp32"
    )
    assert table[1].all()
    assert not table[2].any()


@pytest.mark.parametrize("calls", [1, 3])
def test_each_call_has_its_own_quantiser_of_the_input(graph: LayerGraph, calls: int) -> None:
    layer = replace(graph.layers[1], calls=calls)
    one = LayerGraph(layers=(layer,), edges=(), fingerprint="one")
    table, _ = weight_bytes_table(
        one,
        formats=FORMATS,
        allowed=np.ones((1, 5), dtype=np.bool_),
        base=_one_layer_base(layer.name),
        base_precision="fp32",
    )
    # A float32 scale and a zero point of one byte.
    assert table[0, 1] - table[0, 2] == 5 * calls


def _one_layer_base(name: str) -> onnx.ModelProto:
    weight = onnx.numpy_helper.from_array(np.ones((128, 128), dtype=np.float32), "w")
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"], name="n")
    node.metadata_props.add(key="mpsearch.layer", value=name)
    made = onnx.helper.make_graph(
        [node],
        "one",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [None, 128])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [None, 128])],
        initializer=[weight],
    )
    opsets = [onnx.helper.make_opsetid("", 21)]
    return onnx.helper.make_model(made, opset_imports=opsets, ir_version=10)


def test_zero_points_cost_a_code_each_and_clipping_nothing(graph: LayerGraph) -> None:
    layer = replace(graph.layers[-1], op=Op.LINEAR, weight_shape=(7, 96))
    assert stored_bytes(layer, "w4-asymmetric") == stored_bytes(layer, "w4") + 4  # 7 halves
    groups = 7 * 3
    assert stored_bytes(layer, "w8g32-asymmetric") == 7 * 96 + groups * (4 + 1)
    assert stored_bytes(layer, "w4t") == 7 * 96 // 2 + 4
    assert stored_bytes(layer, "w4a8-mse") == stored_bytes(layer, "w4")
