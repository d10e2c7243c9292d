"""The base ONNX file of a traced model: plain float, with each layer's node marked."""

import io
import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any, Final

import onnx
import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from mpsearch.errors import ModelError
from mpsearch.tracing.additions import mark_additions_
from mpsearch.tracing.onnx_base import COMPUTING, LAYER_KEY, own_file
from mpsearch.tracing.operators import operator_name
from mpsearch.tracing.products import PRODUCTS, attention_apart
from mpsearch.tracing.traced_model import TracedModel

__all__ = ["LAYER_KEY", "OPSET", "base_onnx"]

OPSET: Final = 21  # the first with 4-bit integers and blocked dequantisation
_NODE_KEY: Final = "pkg.torch.onnx.fx_node"
# The exporter's own decomposition turns conv2d into convolution and linear into addmm.
_TARGET: Final = re.compile(
    r"target=torch\.ops\.aten\.(linear|addmm|mm|matmul|embedding"
    r"|conv1d|conv2d|conv_transpose1d|conv_transpose2d|convolution)\."
)
_PRODUCT: Final = re.compile(r"target=torch\.ops\.aten\.(matmul|bmm|mm)\.")
_REFERENCE: Final = re.compile(r"%(\w+)")


def base_onnx(traced: TracedModel) -> onnx.ModelProto:
    """Export the model to ONNX, opset 21, and mark each layer's node.

    A model that was read from an ONNX file keeps the nodes of that file.

    A layer's MatMul, Gemm, Conv, ConvTranspose or Gather carries `mpsearch.layer` = its name in
    `metadata_props` (several nodes where the layer runs several times), a residual addition
    `mpsearch.addition`. Weights are initialisers. Inputs and outputs are called as in `traced`.

    Raises:
        ModelError: The exporter fails, or a layer has no node of its own in the file.
    """
    if traced.origin is not None and traced.origin.is_current:
        own = own_file(traced, traced.origin)
        mark_additions_(own, traced)
        return own
    if traced.program is None:
        raise ModelError(
            "The model was not traced from a torch module. Expected a module's program to export. "
            "Use the ONNX file that it was read from."
        )
    try:
        exported = _export(traced.program, traced)
    except ModelError:
        # The kernel of attention that was traced may return strides which its decomposition in
        # the exporter does not, and which views of it rely on (T5).
        exported = _export(attention_apart(traced.program), traced)
    # Marked before the optimiser, whose fusions (batch norm into Conv) keep the marks.
    _mark_layers_(exported.model.graph, traced)
    _mark_products_(exported.model.graph, traced)
    with _quiet():
        exported.optimize()
    model = exported.model_proto
    missing = set(traced.graph.names) - _keep_marks_of_layers_(model)
    if missing:
        first = next(name for name in traced.graph.names if name in missing)
        raise ModelError(
            f"The ONNX exporter left no {', '.join(sorted(COMPUTING))} for {len(missing)} of "
            f"{len(traced.graph.names)} layers, first {first!r}. Expected one node for each. "
            "Check that the layer's output is used, and that torch is the tested version."
        )
    mark_additions_(model, traced)
    return model


def _export(program: ExportedProgram, traced: TracedModel) -> torch.onnx.ONNXProgram:
    try:
        with _quiet():
            exported = torch.onnx.export(
                program,
                (),
                None,
                dynamo=True,
                opset_version=OPSET,
                optimize=False,
                verbose=False,
                input_names=list(traced.input_names),
                output_names=list(traced.output_names),
            )
    except Exception as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), "no reason given")
        raise ModelError(
            f"torch.onnx.export cannot write the model: {type(error).__name__}: {reason}. Expected "
            "operators that ONNX has. Replace the operator it names."
        ) from error
    if exported is None:
        raise ModelError("torch.onnx.export returned nothing. Expected a program. Update torch.")
    return exported


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's prints off stdout, which belongs to the caller's JSON."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()), warnings.catch_warnings():
            # The exporter uses names that torch itself has deprecated.
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logger.setLevel(level)


def _mark_layers_(graph: Any, traced: TracedModel) -> None:  # noqa: ANN401 - onnxscript is untyped
    """Match the uses of each weight in the file with those in the graph, in their order."""
    assert traced.program is not None
    layers_of = _uses_by_placeholder(traced, _placeholders_by_path(traced.program))
    nodes_of: dict[str, list[Any]] = {}
    for node in graph:
        placeholder = _weight_of(node, layers_of)
        if placeholder is not None:
            nodes_of.setdefault(placeholder, []).append(node)
    for placeholder, nodes in nodes_of.items():
        names = layers_of[placeholder]
        if len(names) == len(nodes):
            for node, name in zip(nodes, names, strict=True):
                node.metadata_props[LAYER_KEY] = name


def _mark_products_(graph: Any, traced: TracedModel) -> None:  # noqa: ANN401 - as above
    """Match products of two activations, which have no weight, in the order of all products."""
    layer_of = {
        node: layer
        for layer, nodes in traced.nodes.items()
        if layer not in traced.weights
        for node in nodes
    }
    products = [node for node in traced.module.graph.nodes if operator_name(node) in PRODUCTS]
    nodes = [node for node in graph if _is_product(node)]
    if len(products) == len(nodes):
        for node, product in zip(nodes, products, strict=True):
            if product.name in layer_of:
                node.metadata_props[LAYER_KEY] = layer_of[product.name]


def _is_product(node: Any) -> bool:  # noqa: ANN401 - as above
    text = node.metadata_props.get(_NODE_KEY, "")
    return node.op_type == "MatMul" and _PRODUCT.search(text) is not None


def _keep_marks_of_layers_(model: onnx.ModelProto) -> set[str]:
    """Take the marks off helper nodes that a fusion copied them to; return the rest."""
    kept: set[str] = set()
    for node in model.graph.node:
        for place, each in reversed(list(enumerate(node.metadata_props))):
            if each.key == LAYER_KEY and node.op_type in COMPUTING:
                kept.add(each.value)
            elif each.key == LAYER_KEY:
                del node.metadata_props[place]
    return kept


def _placeholders_by_path(program: ExportedProgram) -> dict[str, str]:
    return {
        spec.target: spec.arg.name
        for spec in program.graph_signature.input_specs
        if spec.kind is not InputKind.USER_INPUT and spec.target is not None
    }


def _uses_by_placeholder(
    traced: TracedModel, placeholders: Mapping[str, str]
) -> dict[str, Sequence[str]]:
    """Return, for each weight's placeholder, the layer of each use in order of execution."""
    layer_of = {node: layer for layer, nodes in traced.nodes.items() for node in nodes}
    uses: dict[str, list[str]] = {}
    for node in traced.module.graph.nodes:
        layer = layer_of.get(node.name)
        if layer is not None and layer in traced.weights:
            uses.setdefault(placeholders[traced.weights[layer]], []).append(layer)
    return dict(uses)


def _weight_of(node: Any, known: Mapping[str, object]) -> str | None:  # noqa: ANN401 - as above
    if node.op_type not in COMPUTING:
        return None
    text = node.metadata_props.get(_NODE_KEY, "")
    if not _TARGET.search(text):
        return None
    _, _, arguments = text.partition("(args = ")
    return next((name for name in _REFERENCE.findall(arguments) if name in known), None)
