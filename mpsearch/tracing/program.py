"""A module to an exported program whose layers all read their parameter directly."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram

from mpsearch.errors import ModelError
from mpsearch.tracing.call import Call, register_dataclasses_, without_dataclasses
from mpsearch.tracing.operators import argument, layer_operator, operator_name, weight_source
from mpsearch.tracing.products import attention_apart
from mpsearch.tracing.recurrent import unrolled

_LOG = logging.getLogger("mpsearch.tracing")
_MATRIX: Final = 2  # dimensions
_DROPS: Final = 2  # place of `train` among the arguments of aten.dropout
_NORM_TRAINS: Final = 5  # the same of norms
_NORMS: Final = frozenset({"aten.batch_norm", "aten.instance_norm"})
_TRAINING: Final = frozenset({"aten.native_dropout", "aten._native_batch_norm_legit_functional"})


def export_program(model: nn.Module, call: Call, *, has_products: bool = False) -> ExportedProgram:
    """Export in eval mode with batch and length dynamic where the model allows it.

    The model's own mode is restored. In-place operators are replaced, since stored values
    must not change, and every layer reads its parameter without a transpose between. With
    `has_products`, attention is two products around a softmax.

    Raises:
        ModelError: `torch.export` fails.
    """
    with _evaluating(model):
        try:
            program = _export(model, call)
        except ModelError:
            # torch looks into registered classes only, and what comes out shows when it runs.
            if not _returns_new_dataclass(model, call):
                raise
            program = _export(model, call)
    return readable(program, has_products=has_products)


def readable(given: ExportedProgram, *, has_products: bool = False) -> ExportedProgram:
    """Return the program without in-place operators, whose layers read their weight directly.

    Recurrent operators are unrolled where that is not too long; see `export_program`.

    It is changed in place where it has no such operators.
    """
    program = given
    if any(_mutates(node) for node in program.graph.nodes):
        # An empty table decomposes nothing and only makes the graph functional.
        program = program.run_decompositions({})
    program = unrolled(program)
    if has_products:
        # The product lays its result out otherwise than attention as a whole.
        _allow_any_layout_(program.graph_module)
        program = attention_apart(program)
    if program is not given:
        _allow_any_layout_(program.graph_module)
    _read_weights_directly_(program)
    return program


def check_evaluating(program: ExportedProgram) -> None:
    """Refuse a program that was exported while its model was training.

    Raises:
        ModelError: Dropout drops, or a norm follows the batch.
    """
    for node in program.graph.nodes:
        name = operator_name(node)
        is_training = (
            (name == "aten.dropout" and len(node.args) > _DROPS and node.args[_DROPS] is True)
            or name in _TRAINING
            or (name in _NORMS and node.args[_NORM_TRAINS] is True)
        )
        if is_training:
            raise ModelError(
                f"The exported program was training: its operator {node.name!r} ({name}) changes "
                "with every run. Expected a program of a model in eval mode. Call model.eval() "
                "before torch.export."
            )


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
        wanted = shapes.args if attempt.args else dict(shapes.kwargs)
        try:
            return torch.export.export(
                model,
                attempt.args,
                dict(attempt.kwargs),
                dynamic_shapes=without_dataclasses(wanted),
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


def _returns_new_dataclass(model: nn.Module, call: Call) -> bool:
    """Return whether the model returns a dataclass that torch did not know, and now knows."""
    try:
        return register_dataclasses_(model(*call.args, **call.kwargs))
    except Exception:  # noqa: BLE001 - user code runs here; why it fails is told already
        return False


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
