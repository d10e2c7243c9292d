"""What a runtime does with a product of two activations is found by building and running one."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from mpsearch.core.formats import format_named
from mpsearch.core.graph import Layer, LayerGraph, Op, second_input
from mpsearch.core.hardware import Support
from mpsearch.core.plan import ActivationQuantizer, Plan
from mpsearch.cost.bops import bops_table
from mpsearch.cost.weight_bytes import stored_bytes
from mpsearch.errors import FormatError, PlanError
from mpsearch.export import export_plan, weight_bytes
from mpsearch.runtimes import RUNTIMES
from mpsearch.runtimes.kernel_check import found_support
from mpsearch.runtimes.one_product import one_product_onnx
from mpsearch.runtimes.runtime import Kernel

NAME = "attention@matmul"
SCORES = Layer(
    name=NAME, op=Op.PRODUCT, weight_shape=(), input_shape=(2, 3, 8, 16),
    output_shape=(2, 3, 8, 8), macs=2 * 3 * 8 * 8 * 16, inputs_from="queries",
)  # fmt: skip


def _plan(name: str = "a8", *, first: int = 128) -> Plan:
    quantizer = ActivationQuantizer(
        scale=0.5, zero_point=128, low=-64.0, high=63.5, method="given", samples=1
    )
    return Plan(
        assignment={NAME: name},
        quantizers={
            NAME: replace(quantizer, zero_point=first),
            second_input(NAME): replace(quantizer, scale=0.25),
        },
    )


@pytest.mark.parametrize("first", [0, 128])
def test_both_inputs_of_the_node_become_codes_without_offsets(first: int) -> None:
    base = one_product_onnx(SCORES)
    made = export_plan(base, _plan(first=first))
    constants = {each.name: onnx.numpy_helper.to_array(each) for each in made.graph.initializer}
    steps = [node for node in made.graph.node if node.op_type == "QuantizeLinear"]
    assert [node.input[0] for node in steps] == ["first", "second"]
    assert [float(constants[node.input[1]]) for node in steps] == [0.5, 0.25]
    zeros = [constants[node.input[2]] for node in steps]
    assert [int(zero) for zero in zeros] == [0, 0]
    # Signed codes around zero are int8; codes of what is never negative are not.
    assert [zero.dtype for zero in zeros] == [np.int8 if first else np.uint8, np.int8]
    # Two scales of four bytes and two zero points of one.
    assert weight_bytes(made) - weight_bytes(base) == 10


def test_the_file_computes_the_product_of_the_codes() -> None:
    generator = np.random.default_rng(1)
    one = generator.uniform(-70, 70, SCORES.input_shape).astype(np.float32)
    other = generator.uniform(-20, 20, (2, 3, 16, 8)).astype(np.float32)
    codes = np.rint(one / 0.5).clip(-128, 127).astype(int), np.rint(other / 0.25).astype(int)
    reference = ReferenceEvaluator(export_plan(one_product_onnx(SCORES), _plan()))
    (found,) = reference.run(None, {"first": one, "second": other})
    np.testing.assert_allclose(
        np.asarray(found, dtype=np.float32), codes[0] @ codes[1] * 0.125, rtol=1e-5
    )


def test_the_same_tensor_twice_has_both_quantisers() -> None:
    base = one_product_onnx(SCORES)
    base.graph.node[0].input[1] = "first"
    made = export_plan(base, _plan())
    assert len([node for node in made.graph.node if node.op_type == "QuantizeLinear"]) == 2


def test_a_format_with_a_weight_is_refused() -> None:
    with pytest.raises(FormatError, match="no weight"):
        export_plan(one_product_onnx(SCORES), _plan("w8a8"))
    lacking = replace(_plan(), quantizers={NAME: _plan().quantizers[NAME]})
    with pytest.raises(PlanError, match="no quantiser"):
        export_plan(one_product_onnx(SCORES), lacking)


@pytest.mark.parametrize("name", ["openvino", "onnxruntime"])
def test_runtimes_multiply_codes(name: str) -> None:
    runtime = RUNTIMES[name]
    assert runtime.support(SCORES, "a8", base="fp32") is Support.NATIVE
    assert runtime.support(SCORES, "w8a8", base="fp32") is Support.NONE
    assert runtime.support(replace(SCORES, op=Op.LINEAR), "a8", base="fp32") is Support.NONE


def test_torch_has_no_kernel_and_the_simulation_needs_none() -> None:
    assert RUNTIMES["torch"].support(SCORES, "a8", base="fp32") is Support.NONE
    assert RUNTIMES["simulation"].support(SCORES, "a8", base="fp32") is Support.NATIVE
    assert RUNTIMES["simulation"].support(SCORES, "w4", base="fp32") is Support.NONE


def test_a_product_left_float_is_no_support() -> None:
    kernel = Kernel(type="MatMul", name="brgemm", precision="f32", weight="computed")
    a8 = format_named("a8")
    assert found_support(a8, kernel, base="fp32") is Support.NONE
    for codes in ("u8", "i8"):
        assert found_support(a8, replace(kernel, precision=codes), base="fp32") is Support.NATIVE


def test_it_costs_no_bytes_and_the_bits_of_both_inputs() -> None:
    assert [stored_bytes(SCORES, name) for name in ("fp32", "a8", "w8a8")] == [0, 0, 0]
    graph = LayerGraph(layers=(SCORES,), edges=(), fingerprint="x")
    (row,) = bops_table(graph, formats=("fp32", "a8"), base="fp32")
    assert row.tolist() == [SCORES.macs * 32 * 32, SCORES.macs * 8 * 8]
