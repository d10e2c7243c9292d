"""How a model is called: its arguments, whatever their structure, as tensors by name."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, is_dataclass, replace
from dataclasses import fields as fields_of
from typing import Any, final, get_origin

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from mpsearch.errors import DataError


@final
@dataclass(frozen=True, kw_only=True)
class Call:
    """How a model is called: positional and named arguments, and its inputs by name.

    Arguments may be tensors, or dicts, tuples, lists and dataclasses of them. `free` holds,
    for each input, the dimensions that may vary; None leaves the choice to `export_program`.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    names: tuple[str, ...]
    free: tuple[frozenset[int], ...] | None = None

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Return the inputs in the order of `names`."""
        return tuple(pytree.tree_leaves((self.args, dict(self.kwargs))))

    def with_tensors(self, tensors: Sequence[Any]) -> "Call":
        """Return the same call of other tensors, or of what stands for them."""
        structure = pytree.tree_structure((self.args, dict(self.kwargs)))
        args, kwargs = pytree.tree_unflatten(list(tensors), structure)
        return replace(self, args=args, kwargs=kwargs)


def call_of(model: nn.Module, example: Mapping[str, Any] | Sequence[Any]) -> Call:
    """Find out how `model.forward` takes the example inputs.

    A sequence is passed by position, a mapping by name, or as one dict or dataclass where
    `forward` has a single parameter of another name. A tensor within an argument is called by
    the argument's name and its place in there, such as `pair_0` or `inputs_left`; within the
    one argument of a model, by its key or field alone.

    Raises:
        DataError: The example is empty, holds something else than tensors, or does not fit.
    """
    register_dataclasses_(example)
    parameters = _parameters(model)
    call = _by_name(parameters, example) if isinstance(example, Mapping) else None
    if call is None:
        call = _by_position(parameters, list(example))
    values = call.tensors
    if not values or not all(isinstance(value, Tensor) and value.ndim for value in values):
        raise DataError(
            f"The example inputs are {[type(value).__name__ for value in values]}. Expected at "
            "least one tensor, each with a batch dimension. Pass a dict or tuple of tensors."
        )
    return call


def register_dataclasses_(value: object) -> bool:
    """Let torch look into the dataclasses of a value; return whether one was new to it."""
    parts = _parts(value)
    is_new = _is_dataclass(value) and type(value) not in pytree.SUPPORTED_NODES
    if is_new:
        torch.export.register_dataclass(type(value))
    inner = [register_dataclasses_(part) for part in parts]
    return is_new or any(inner)


def without_dataclasses(value: Any) -> Any:  # noqa: ANN401 - any structure of values
    """Return the same structure with lists of fields in place of registered dataclasses."""
    if type(value) in pytree.SUPPORTED_NODES and _is_dataclass(value):
        return [without_dataclasses(part) for part in _parts(value)]
    if isinstance(value, Mapping):
        return {key: without_dataclasses(part) for key, part in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(without_dataclasses(part) for part in value)
    return value


def takes_structure(model: nn.Module) -> bool:
    """Return whether the one argument of the model is annotated as a dict or a dataclass."""
    parameters = tuple(_parameters(model).values())
    kind = parameters[0].annotation if len(parameters) == 1 else None
    plain = get_origin(kind) or kind
    return isinstance(plain, type) and (is_dataclass(plain) or issubclass(plain, Mapping))


def _parameters(model: nn.Module) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(model.forward, eval_str=True).parameters
    except NameError:  # an annotation that is there for type checkers alone
        return inspect.signature(model.forward).parameters


def _is_dataclass(value: object) -> bool:
    return is_dataclass(value) and not isinstance(value, type)


def _parts(value: Any) -> list[Any]:  # noqa: ANN401 - the same
    if isinstance(value, Mapping):
        return list(value.values())
    if isinstance(value, tuple | list):
        return list(value)
    return [getattr(value, each.name) for each in fields_of(value)] if _is_dataclass(value) else []


def _by_name(
    parameters: Mapping[str, inspect.Parameter], example: Mapping[str, Any]
) -> Call | None:
    kinds = {parameter.kind for parameter in parameters.values()}
    if set(example) <= set(parameters) or inspect.Parameter.VAR_KEYWORD in kinds:
        # In the order of the signature: the graph's placeholders stand in it.
        order = [name for name in parameters if name in example]
        order += [name for name in example if name not in order]
        if len(parameters) == 1 and _is_dataclass(example[order[0]]):
            return _by_position(parameters, [example[order[0]]])
        kwargs = {name: example[name] for name in order}
        return Call(args=(), kwargs=kwargs, names=_names(kwargs))
    if len(parameters) != 1:
        raise DataError(
            f"The example has the inputs {sorted(example)}, the model takes {sorted(parameters)}. "
            "Expected names of its parameters. Rename the inputs."
        )
    (parameter,) = parameters.values()
    kind = parameter.annotation
    if isinstance(kind, type) and is_dataclass(kind):
        return _by_position(parameters, [_filled(kind, example)])
    return Call(args=(dict(example),), kwargs={}, names=_names(dict(example)))


def _by_position(parameters: Mapping[str, inspect.Parameter], values: Sequence[Any]) -> Call:
    names = [name for name, each in parameters.items() if each.kind is not each.VAR_POSITIONAL]
    names += [f"input_{place}" for place in range(len(names), len(values))]
    is_one = len(values) == 1 and (isinstance(values[0], Mapping) or _is_dataclass(values[0]))
    named = values[0] if is_one else dict(zip(names, values, strict=False))
    return Call(args=tuple(values), kwargs={}, names=_names(named))


def _filled(kind: type, example: Mapping[str, Any]) -> object:
    try:
        value = kind(**example)
    except TypeError as error:
        raise DataError(
            f"The model takes a {kind.__name__}, which cannot be made of {sorted(example)}: "
            f"{error}. Expected its fields. Rename the inputs."
        ) from error
    register_dataclasses_(value)
    return value


def _names(tree: object) -> tuple[str, ...]:
    """Return, for each tensor, the keys, places and fields that lead to it, joined by `_`."""
    paths = [path for path, _ in pytree.tree_flatten_with_path(tree)[0]]
    return tuple("_".join(part_name(key) for key in path) for path in paths)


def part_name(key: object) -> str:
    """Return the text of a step into a tree: a key, a place or a field."""
    for field in ("key", "idx", "name"):
        if hasattr(key, field):
            return str(getattr(key, field))
    return str(key)
