"""Quantisers on the addends of residual additions: what placement `residual_adds` adds to a file.

The Add nodes are those that `mpsearch.tracing.base_onnx` has marked; an addition is quantised
where the plan has quantisers of its addends.
"""

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import helper, numpy_helper

from mpsearch.core.placement import ADDITION_KEY, OWN_SLOT_KEY, addend_keys, additions_with
from mpsearch.core.plan import ActivationQuantizer, Plan
from mpsearch.errors import PlanError
from mpsearch.export.graph_edit import metadata


def marked_additions(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    """Return the nodes that are marked as residual additions, by name."""
    marks = ((metadata(node.metadata_props), node) for node in model.graph.node)
    return {facts[ADDITION_KEY]: node for facts, node in marks if ADDITION_KEY in facts}


def quantise_additions_(model: onnx.ModelProto, plan: Plan) -> None:
    """Make the additions that the plan quantises read codes of their addends.

    Raises:
        PlanError: The file has no such addition, or one of its addends has no quantiser.
    """
    known = marked_additions(model)
    before: dict[str, list[onnx.NodeProto]] = {}
    for name in additions_with(plan.quantizers):
        if name not in known:
            raise PlanError(
                f"The plan quantises the residual addition {name!r}, which is none of the "
                f"{len(known)} that are marked in the file. Expected one of them. Use the plan "
                "with the model it was made for, or search again."
            )
        node = known[name]
        own = int(metadata(node.metadata_props)[OWN_SLOT_KEY])
        pairs = before.setdefault(node.output[0], [])
        for slot, key in zip((own, 1 - own), addend_keys(name), strict=True):
            pairs.extend(_pair(model, key, tensor=node.input[slot], plan=plan))
            node.input[slot] = pairs[-1].output[0]
    nodes = list(model.graph.node)
    del model.graph.node[:]
    for node in nodes:
        model.graph.node.extend([*before.get(next(iter(node.output), ""), ()), node])


def _pair(model: onnx.ModelProto, key: str, *, tensor: str, plan: Plan) -> Iterator[onnx.NodeProto]:
    """Yield QuantizeLinear and DequantizeLinear of one addend, whose numbers join the model."""
    quantizer = plan.quantizers.get(key)
    if quantizer is None:
        raise PlanError(
            f"The plan has no quantiser {key!r}, though it has one of the other addend. Expected "
            "both. Search again with calibration data."
        )
    scale, zero, codes = f"{key}.scale", f"{key}.zero_point", f"{key}.codes"
    model.graph.initializer.extend(_numbers(quantizer, scale=scale, zero=zero))
    yield helper.make_node("QuantizeLinear", [tensor, scale, zero], [codes], name=f"{key}.quantize")
    yield helper.make_node(
        "DequantizeLinear", [codes, scale, zero], [f"{key}.real"], name=f"{key}.dequantize"
    )


def _numbers(
    quantizer: ActivationQuantizer, *, scale: str, zero: str
) -> Iterator[onnx.TensorProto]:
    yield numpy_helper.from_array(np.array(quantizer.scale, dtype=np.float32), scale)
    yield numpy_helper.from_array(np.array(quantizer.zero_point, dtype=np.uint8), zero)
