"""From a torch module to its graph, with every layer found, counted and named."""

import logging
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from mpsearch.core.cache import content_hash
from mpsearch.core.graph import Layer, LayerGraph, Op
from mpsearch.errors import DataError
from mpsearch.tracing.additions import residual_additions
from mpsearch.tracing.call import Call, call_of, part_name
from mpsearch.tracing.graph_facts import fused_operators, residual_groups
from mpsearch.tracing.layers import (
    FoundLayer,
    NameOf,
    find_edges,
    find_layers,
    input_source,
    name_by_path,
    same_tensors,
    tensor_aliases,
    tied_weights,
)
from mpsearch.tracing.left_out import left_out
from mpsearch.tracing.operators import argument, layer_operator
from mpsearch.tracing.products import Takes, find_products, in_order, take_all
from mpsearch.tracing.program import check_evaluating, export_program, readable
from mpsearch.tracing.traced_model import TracedModel, tensor_at
from mpsearch.tracing.weight_layout import outputs_first

_LOG = logging.getLogger("mpsearch.tracing")


def trace_model(
    model: nn.Module,
    example: Mapping[str, Any] | Sequence[Any],
    *,
    root: str = "",
    has_products: bool = False,
) -> TracedModel:
    """Turn a module into a graph of ATen operators, in eval mode, and find its layers.

    Batch (first size of every input) and length (second size of integer inputs) stay
    dynamic where the model allows it. Layers are Linear, Conv1d, Conv2d, their
    transposed forms and Embedding, as modules or functions, and matrix products with a
    parameter. The model keeps its mode and
    its parameters, which the result shares. `root` is cut off the layers' names.

    Args:
        model: Any module that `torch.export` can read.
        example: Its inputs: a mapping by name, or a sequence by position. An input may be a
            tensor, or a dict, tuple or dataclass of tensors, which become inputs of their own.
        root: A prefix of paths that a wrapper adds, such as "model.".
        has_products: Whether products of two activations, also those within attention, are
            layers too. Formats of inputs alone (`a8`) are for them.

    Raises:
        ModelError: It cannot be exported, has no layers, or weights that are not finite.
        DataError: The example does not fit the model.

    Example:
        >>> traced = trace_model(nn.Sequential(nn.Linear(4, 3)), [torch.zeros(2, 4)])
        >>> [(layer.name, layer.macs) for layer in traced.graph.layers]
        [('0', 24)]
    """
    products = take_all if has_products else None
    call = call_of(model, example)
    return trace_call(model, call, name_of=name_by_path(root), products=products)


def trace_program(program: ExportedProgram, *, has_products: bool = False) -> TracedModel:
    """Turn a program of `torch.export` into a graph, as `trace_model` does with a module.

    Its inputs keep the names and the free sizes that they were exported with, and the tensors
    that it was exported with are the example. The program itself stays as it is.

    Raises:
        ModelError: It was exported in training mode, or has no layers.
        DataError: It holds no example, or inputs that are no tensors.
    """
    check_evaluating(program)
    names = tuple(str(name) for name in program.graph_signature.user_inputs)
    values = pytree.tree_leaves(program.example_inputs)
    if len(names) != len(values) or not all(isinstance(value, Tensor) for value in values):
        raise DataError(
            f"The exported program takes {len(names)} inputs and holds {len(values)} example "
            "values. Expected a tensor for each. Export it with tensors alone, and keep them."
        )
    # Copied, since weights are rewired in place; the tensors are shared.
    own = readable(program.run_decompositions({}), has_products=has_products)
    return _traced(
        own,
        aliases=same_tensors(own.state_dict.items()),
        tensors=dict(zip(names, values, strict=True)),
        name_of=name_by_path(""),
        products=take_all if has_products else None,
    )


def trace_call(
    model: nn.Module, call: Call, *, name_of: NameOf, products: Takes | None = None
) -> TracedModel:
    """Do the work of `trace_model` for how a model is called and how its layers are named.

    `products` says which products of two activations are layers; None for none.
    """
    return _traced(
        export_program(model, call, has_products=products is not None),
        aliases=tensor_aliases(model),
        tensors=dict(zip(call.names, call.tensors, strict=True)),
        name_of=name_of,
        products=products,
    )


def _traced(
    program: ExportedProgram,
    *,
    aliases: Mapping[str, tuple[str, ...]],
    tensors: Mapping[str, Tensor],
    name_of: NameOf,
    products: Takes | None,
) -> TracedModel:
    module = program.module(check_guards=False)
    if not isinstance(module, fx.GraphModule):  # torch says so; its annotation does not
        raise TypeError(type(module))
    layers = find_layers(module, aliases=aliases, name_of=name_of)
    if products is not None:
        found = find_products(module, layers=layers, takes=products, name_of=name_of)
        layers = in_order(module, [*layers, *found])
    graph = _layer_graph(module, layers, inputs=tuple(tensors.values()))
    return TracedModel(
        module=module,
        graph=graph,
        nodes={layer.name: tuple(node.name for node in layer.nodes) for layer in layers},
        weights={layer.name: layer.weight for layer in layers if layer.weight},
        input_names=tuple(tensors),
        output_names=_output_names(program),
        example=tensors,
        program=program,
    )


def _layer_graph(
    module: fx.GraphModule, found: Sequence[FoundLayer], *, inputs: Sequence[Tensor]
) -> LayerGraph:
    shapes = _ShapeRecorder(module)
    with torch.no_grad():
        try:
            shapes.run(*inputs)
        except (RuntimeError, IndexError, ValueError) as error:
            raise DataError(
                f"The traced model does not run on its example: {error}. Expected inputs within "
                "the ranges of the model, such as token numbers below the vocabulary. Change them."
            ) from error
    layers = tuple(_layer(module, layer, shapes=shapes.found) for layer in found)
    own = {id(tensor_at(module, layer.weight)) for layer in found if layer.weight}
    others = [each.numel() for each in module.parameters() if id(each) not in own]
    place = {node: place for place, layer in enumerate(found) for node in layer.nodes}
    return LayerGraph(
        layers=layers,
        edges=find_edges(module, found),
        shared_weights=tied_weights(found),
        residuals=residual_groups(module, place),
        additions={
            each.name: each.layer for each in residual_additions(module, place, layers=layers)
        },
        other_parameters=sum(others),
        left_out=_told(left_out(module, [node for layer in found for node in layer.nodes])),
        fingerprint=_fingerprint(module),
    )


def _told(left: Mapping[str, str]) -> Mapping[str, str]:
    for path, reason in left.items():
        _LOG.warning("Parameter %s stays at full precision: %s.", path, reason)
    return left


class _ShapeRecorder(fx.Interpreter):
    """Runs the example once and keeps the shape of every tensor."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.found: dict[str, tuple[int, ...]] = {}

    def run_node(self, n: fx.Node) -> Any:  # noqa: ANN401 - the value of any node
        value = super().run_node(n)
        if isinstance(value, Tensor):
            self.found[n.name] = tuple(value.shape)
        return value


def _layer(
    module: fx.GraphModule, found: FoundLayer, *, shapes: Mapping[str, tuple[int, ...]]
) -> Layer:
    node = found.nodes[0]
    weight = (
        tuple(outputs_first(node, tensor_at(module, found.weight)).shape) if found.weight else ()
    )
    macs = sum(
        layer_macs(
            found.operator.op,
            weight=weight,
            given=_shape_of_input(each, shapes=shapes),
            output=shapes[each.name],
        )
        for each in found.nodes
    )
    return Layer(
        name=found.name,
        op=found.operator.op,
        weight_shape=weight,
        input_shape=_shape_of_input(node, shapes=shapes),
        output_shape=shapes[node.name],
        macs=macs,
        inputs_from=input_source(found),
        calls=len(found.nodes),
        fused=fused_operators(found.nodes),
    )


def _shape_of_input(node: fx.Node, *, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    operator = layer_operator(node)
    source = None if operator is None else argument(node, operator.input)
    return () if source is None else shapes[source.name]


def layer_macs(
    op: Op, *, weight: tuple[int, ...], given: tuple[int, ...], output: tuple[int, ...]
) -> int:
    """Return the multiply-accumulates of one call: output numbers x inputs of each.

    A weight is (outputs, inputs, ...); looking up an embedding multiplies nothing. A transposed
    convolution meets its whole weight once at each place of what it is `given`, whose shape is
    (samples, inputs, places, ...). A product has no weight, and as many inputs of each output
    as a row of what it is given.

    Example:
        >>> layer_macs(Op.CONV, weight=(8, 3, 3, 3), given=(1, 3, 12, 12), output=(1, 8, 10, 10))
        21600
        >>> layer_macs(Op.CONV_TRANSPOSE, weight=(3, 8, 2, 2), given=(1, 8, 5, 5),
        ...            output=(1, 3, 10, 10))
        2400
    """
    if op is Op.EMBEDDING:
        return 0
    if op is Op.CONV_TRANSPOSE:
        return given[0] * prod(given[2:]) * prod(weight)
    if op is Op.PRODUCT:
        return prod(output) * given[-1]
    return prod(output) * prod(weight[1:])


def _fingerprint(module: fx.GraphModule) -> str:
    """Hash operators, wiring and every tensor that the graph reads."""
    structure = [
        (node.op, str(node.target), str(node.args), str(node.kwargs)) for node in module.graph.nodes
    ]
    read = sorted({str(node.target) for node in module.graph.nodes if node.op == "get_attr"})
    parts: list[object] = [structure]
    for path in read:
        found = _attribute(module, path)
        if isinstance(found, Tensor):
            plain = found.detach().cpu().contiguous()
            parts += [path, str(plain.dtype), list(plain.shape)]
            parts.append(plain.reshape(-1).view(torch.uint8).numpy())
        else:
            parts += [path, str(found)]
    return content_hash(*parts)


def _attribute(module: fx.GraphModule, path: str) -> object:
    found: object = module
    for part in path.split("."):
        found = getattr(found, part)
    return found


def _output_names(program: ExportedProgram) -> tuple[str, ...]:
    """Return `logits` for a field of that name, else `output`, with numbers where several."""
    spec = program.call_spec.out_spec
    count = len(program.graph_signature.user_outputs)
    if spec is None:
        return tuple(f"output_{place}" for place in range(count))
    tree = pytree.tree_unflatten([0] * spec.num_leaves, spec)
    paths = [path for path, _ in pytree.tree_flatten_with_path(tree)[0]]
    names = ["_".join(part_name(key) for key in path) or "output" for path in paths]
    return tuple(f"output_{name}" if name[0].isdigit() else name for name in names)
