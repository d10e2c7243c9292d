"""Quantised additions in files, against the same sums computed by hand."""

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from numpy import ndarray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from mpsearch.core.placement import ADDITION_KEY, OWN_SLOT_KEY, RESIDUAL_ADDS, addend_keys
from mpsearch.core.plan import ActivationQuantizer, Plan
from mpsearch.errors import PlanError
from mpsearch.export import export_plan, weight_bytes
from mpsearch.export.graph_edit import LAYER_KEY
from mpsearch.export.residual_adds import marked_additions
from mpsearch.testing.small_onnx import small_model

OWN, OTHER = addend_keys("sum")


def _quantizer(scale: float, zero_point: int) -> ActivationQuantizer:
    return ActivationQuantizer(
        scale=scale,
        zero_point=zero_point,
        low=-zero_point * scale,
        high=(255 - zero_point) * scale,
        method="minmax",
        samples=1,
    )


COARSE, SHIFTED = _quantizer(0.5, 128), _quantizer(0.25, 250)


def _block(own_slot: int, *, opset: int = 21) -> onnx.ModelProto:
    """Return x + 2 x, whose doubling is a layer; its output is the given input of the sum."""
    layer = helper.make_node("MatMul", ["x", "w"], ["doubled"], name="double")
    layer.metadata_props.add(key=LAYER_KEY, value="double")
    sides = ["doubled", "x"] if own_slot == 0 else ["x", "doubled"]
    addition = helper.make_node("Add", sides, ["y"], name="sum")
    addition.metadata_props.add(key=ADDITION_KEY, value="sum")
    addition.metadata_props.add(key=OWN_SLOT_KEY, value=str(own_slot))
    graph = helper.make_graph(
        [layer, addition],
        "block",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 3])],
        initializer=[numpy_helper.from_array(2 * np.eye(3, dtype=np.float32), "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def _plan(**changes: Any) -> Plan:  # noqa: ANN401 - fields of a plan
    plan = Plan(
        assignment={"double": "fp32"},
        placement=RESIDUAL_ADDS,
        quantizers={OWN: COARSE, OTHER: SHIFTED},
    )
    return replace(plan, **changes)


def _run(model: onnx.ModelProto, x: ndarray) -> ndarray:
    (result,) = ReferenceEvaluator(model).run(None, {"x": x})
    assert isinstance(result, ndarray)
    return result


@pytest.mark.parametrize("own_slot", [0, 1])
@pytest.mark.parametrize("opset", [17, 21])
def test_each_addend_passes_its_own_codes(own_slot: int, opset: int) -> None:
    x = np.array([[0.3, -1.1, 40.0], [2.0, -70.0, 1.375]], dtype=np.float32)
    found = _run(export_plan(_block(own_slot, opset=opset), _plan()), x)
    # 2 x in steps of .5 within -64 and 63.5, x in steps of .25 within -62.5 and 1.25.
    own = np.array([[0.5, -2.0, 63.5], [4.0, -64.0, 3.0]])
    other = np.array([[0.25, -1.0, 1.25], [1.25, -62.5, 1.25]])
    np.testing.assert_array_equal(found, own + other)


def test_an_addition_takes_ten_bytes_and_no_other_placement_takes_any() -> None:
    base = _block(0)
    assert weight_bytes(export_plan(base, _plan())) == weight_bytes(base) + 10
    unplaced = export_plan(base, _plan(placement="layer_inputs"))
    assert [node.op_type for node in unplaced.graph.node] == ["MatMul", "Add"]


def test_additions_without_quantisers_stay_as_they_are() -> None:
    exported = export_plan(_block(0), _plan(quantizers={}))
    assert [node.op_type for node in exported.graph.node] == ["MatMul", "Add"]


@pytest.mark.parametrize("lacking", [OWN, OTHER])
def test_a_plan_with_one_of_two_addends_is_refused(lacking: str) -> None:
    quantizers = {key: each for key, each in _plan().quantizers.items() if key != lacking}
    with pytest.raises(PlanError, match="no quantiser"):
        export_plan(_block(0), _plan(quantizers=quantizers))


def test_a_plan_of_additions_that_the_file_lacks_is_refused() -> None:
    wrong = dict(zip(addend_keys("elsewhere"), (COARSE, SHIFTED), strict=True))
    with pytest.raises(PlanError, match="none of the 1 that are marked"):
        export_plan(_block(0), _plan(quantizers=wrong))


def test_the_exported_file_still_names_its_additions() -> None:
    model = small_model()
    plan = model.plan(dict.fromkeys(model.layers, "w8") | {"right": "w8a8"})
    for opset in (17, 21):
        base = _block(1, opset=opset)
        assert list(marked_additions(export_plan(base, _plan()))) == ["sum"]
    assert list(marked_additions(export_plan(model.onnx(), plan))) == ["right"]
