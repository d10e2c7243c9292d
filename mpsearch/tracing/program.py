"""A module to an exported program whose layers all read their parameter directly."""

import inspect
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final, final

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram

from mpsearch.errors import DataError, ModelError
from mpsearch.tracing.operators import argument, layer_operator, operator_name, weight_source

_LOG = logging.getLogger("mpsearch.tracing")
_MATRIX: Final = 2  # dimensions


@final
@dataclass(frozen=True, kw_only=True)
class Call:
    """How a model is called: positional and named arguments, and its inputs by name.

    `free` holds, for each input, the dimensions that may vary; None leaves the choice to
    `export_program`.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    names: tuple[str, ...]
    free: tuple[frozenset[int], ...] | None = None

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Return the inputs in the order of `names`."""
        flat: list[Tensor] = []
        for value in (*self.args, *self.kwargs.values()):
            flat.extend(value.values() if isinstance(value, Mapping) else [value])
        return tuple(flat)

    def with_tensors(self, tensors: Sequence[Any]) -> "Call":
        """Return the same call of other tensors, or of what stands for them."""
        rest = iter(tensors)

        def filled(value: object) -> object:
            return {key: next(rest) for key in value} if isinstance(value, Mapping) else next(rest)

        args = tuple(filled(value) for value in self.args)
        kwargs = {key: filled(value) for key, value in self.kwargs.items()}
        return replace(self, args=args, kwargs=kwargs)


def call_of(model: nn.Module, example: Mapping[str, Tensor] | Sequence[Tensor]) -> Call:
    """Find out how `model.forward` takes the example inputs.

    A sequence is passed by position, a mapping by name, or as one dict where `forward`
    has a single parameter of another name.

    Raises:
        DataError: The example is empty, holds something else than tensors, or does not fit.
    """
    values = list(example.values()) if isinstance(example, Mapping) else list(example)
    if not values or not all(isinstance(value, Tensor) and value.ndim for value in values):
        raise DataError(
            f"The example inputs are {[type(value).__name__ for value in values]}. Expected at "
            "least one tensor, each with a batch dimension. Pass a dict or tuple of tensors."
        )
    parameters = inspect.signature(model.forward).parameters
    kinds = {parameter.kind for parameter in parameters.values()}
    if not isinstance(example, Mapping):
        names = [name for name, each in parameters.items() if each.kind is not each.VAR_POSITIONAL]
        names += [f"input_{place}" for place in range(len(names), len(values))]
        return Call(args=tuple(values), kwargs={}, names=tuple(names[: len(values)]))
    if set(example) <= set(parameters) or inspect.Parameter.VAR_KEYWORD in kinds:
        # In the order of the signature: the graph's placeholders stand in it.
        order = [name for name in parameters if name in example]
        order += [name for name in example if name not in order]
        return Call(args=(), kwargs={name: example[name] for name in order}, names=tuple(order))
    if len(parameters) == 1:
        return Call(args=(dict(example),), kwargs={}, names=tuple(example))
    raise DataError(
        f"The example has the inputs {sorted(example)}, the model takes {sorted(parameters)}. "
        "Expected names of its parameters. Rename the inputs."
    )


def export_program(model: nn.Module, call: Call) -> ExportedProgram:
    """Export in eval mode with batch and length dynamic where the model allows it.

    The model's own mode is restored. In-place operators are replaced, since stored values
    must not change, and every layer reads its parameter without a transpose between.

    Raises:
        ModelError: `torch.export` fails.
    """
    with _evaluating(model):
        program = _export(model, call)
    if any(_mutates(node) for node in program.graph.nodes):
        # An empty table decomposes nothing and only makes the graph functional.
        program = program.run_decompositions({})
        _allow_any_layout_(program.graph_module)
    _read_weights_directly_(program)
    return program


def _export(model: nn.Module, call: Call) -> ExportedProgram:
    # A size of 1 is taken as constant, so a batch of one is traced as a batch of two.
    attempts = [call]
    free = call.free or tuple(_free_sizes(each) for each in call.tensors)
    if all(len(each) == 1 and 0 in sizes for each, sizes in zip(call.tensors, free, strict=True)):
        attempts.insert(0, call.with_tensors([torch.cat([each, each]) for each in call.tensors]))
    failure: Exception | None = None
    for attempt in attempts:
        # AUTO keeps a size dynamic unless the model fixes it.
        shapes = attempt.with_tensors([dict.fromkeys(sizes, Dim.AUTO) for sizes in free])
        try:
            return torch.export.export(
                model,
                attempt.args,
                dict(attempt.kwargs),
                dynamic_shapes=shapes.args if attempt.args else dict(shapes.kwargs),
            )
        except Exception as error:  # noqa: BLE001 - user code runs here: it may raise anything
            failure = failure or error
            _LOG.info("torch.export failed: %s", error)
    if isinstance(failure, ModelError):
        raise failure
    reason = next((line for line in str(failure).splitlines() if line.strip()), "no reason given")
    raise ModelError(
        f"torch.export cannot turn {type(model).__name__} into a graph: "
        f"{type(failure).__name__}: {reason.strip().rstrip('.')}. Expected a forward pass whose "
        "control flow does not depend on the data. Rewrite that part with torch.where or "
        "torch.cond, or pass the submodule that holds the layers."
    ) from failure


def _free_sizes(value: Tensor) -> frozenset[int]:
    """Return the dimensions of batch and, in whole numbers, of length."""
    length = not value.is_floating_point() and value.ndim > 1
    return frozenset({0, 1}) if length else frozenset({0})


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    fast_path = torch.backends.mha.get_fastpath_enabled()
    model.eval()
    # The fused encoder operator would hide the layers inside it.
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        # Without gradients an inner no_grad leaves no subgraph behind.
        with torch.no_grad():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        for module, mode in modes.items():
            module.training = mode


def _mutates(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and bool(schema.is_mutable)


def _allow_any_layout_(module: fx.GraphModule) -> None:
    """Turn `view` into `reshape`: attention lays its result out otherwise where it is trained."""
    for node in module.graph.nodes:
        if node.op == "call_function" and node.target is torch.ops.aten.view.default:
            node.target = torch.ops.aten.reshape.default
    module.recompile()


def _read_weights_directly_(program: ExportedProgram) -> None:
    """Turn `matmul(x, w.t())` into `linear(x, w)`, and the like, in place."""
    graph = program.graph_module.graph
    for node in list(graph.nodes):
        operator = layer_operator(node)
        weight = None if operator is None else argument(node, operator.weight)
        source = None if weight is None else weight_source(weight)
        if operator is None or weight is None or source is None or weight.op == "placeholder":
            continue
        if source[0].op == "placeholder" and len(_sizes(source[0])) == _MATRIX:
            _rewrite_(graph, node, source=source)
    graph.eliminate_dead_code()
    program.graph_module.recompile()


def _rewrite_(graph: fx.Graph, node: fx.Node, *, source: tuple[fx.Node, bool]) -> None:
    parameter, is_transposed = source
    operator = layer_operator(node)
    assert operator is not None
    if not is_transposed:
        node.replace_input_with(node.args[operator.weight], parameter)  # type: ignore[arg-type]  # the caller saw a node there
        return
    if operator_name(node) == "aten.addmm" and node.kwargs:
        return  # Scaled by alpha or beta: rare enough to stay float.
    bias = argument(node, operator.bias)
    data = node.args[operator.input]
    with graph.inserting_before(node):
        if operator.is_transposed:
            new = graph.call_function(torch.ops.aten.linear.default, (data, parameter, bias))
        else:
            new = graph.call_function(torch.ops.aten.matmul.default, (data, parameter))
            new.meta = dict(node.meta)
            if bias is not None:
                new = graph.call_function(torch.ops.aten.add.Tensor, (new, bias))
    new.meta = dict(node.meta)
    node.replace_all_uses_with(new)
    graph.erase_node(node)


def _sizes(node: fx.Node) -> Sequence[int]:
    value = node.meta.get("val")
    return tuple(value.shape) if isinstance(value, Tensor) else ()
