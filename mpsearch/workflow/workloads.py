"""Workloads: the input shapes that latency is measured at."""

from collections.abc import Mapping
from typing import TypeAlias

from mpsearch.core.hardware import Workload
from mpsearch.errors import DataError

WorkloadRequest: TypeAlias = Mapping[str, Mapping[str, int | tuple[int, ...]]]

_SHORTHAND = {"batch": 0, "length": 1}


def workloads_of(
    request: WorkloadRequest | None, *, examples: Mapping[str, tuple[int, ...]]
) -> tuple[Workload, ...]:
    """Return the workloads asked for; without one a single sample of the example's shape.

    The first is the one that a budget on `latency` means; `latency@NAME` means any of them.

    Args:
        request: {name: {input: shape}}, or {name: {"batch": 1, "length": 32}}, which sets the
            first and second dimension of the example's shapes.
        examples: Shape of each input of the model.

    Raises:
        DataError: An input is unknown or missing, or a shape has another number of dimensions.

    Example:
        >>> workloads_of({"b1": {"batch": 1, "length": 32}}, examples={"ids": (8, 16)})[0].shapes
        {'ids': (1, 32)}
    """
    if not request:
        single = {name: (1, *shape[1:]) for name, shape in examples.items()}
        return (Workload(name="b1", shapes=single),)
    return tuple(_workload(name, wanted, examples=examples) for name, wanted in request.items())


def _workload(
    name: str,
    wanted: Mapping[str, int | tuple[int, ...]],
    *,
    examples: Mapping[str, tuple[int, ...]],
) -> Workload:
    if set(wanted) <= set(_SHORTHAND):
        return Workload(name=name, shapes={k: _set(s, wanted) for k, s in examples.items()})
    if set(wanted) != set(examples):
        raise DataError(
            f"Workload {name!r} names the inputs {sorted(wanted)}. Expected {sorted(examples)}, "
            "or 'batch' and 'length'. Give the shape of each input."
        )
    shapes = {key: _shape(wanted[key], name=key, example=examples[key]) for key in examples}
    return Workload(name=name, shapes=shapes)


def _set(shape: tuple[int, ...], wanted: Mapping[str, int | tuple[int, ...]]) -> tuple[int, ...]:
    sizes = {_SHORTHAND[key]: value for key, value in wanted.items()}
    result = [sizes.get(place, size) for place, size in enumerate((1, *shape[1:]))]
    return _shape(tuple(result), name="batch and length", example=shape)


def _shape(wanted: object, *, name: str, example: tuple[int, ...]) -> tuple[int, ...]:
    sizes = tuple(wanted) if isinstance(wanted, tuple | list) else (wanted,)
    whole = [size for size in sizes if isinstance(size, int) and size > 0]
    if len(whole) != len(sizes) or len(whole) != len(example):
        raise DataError(
            f"Workload shape {wanted!r} of {name!r} does not fit. Expected "
            f"{len(example)} whole numbers > 0, such as {example}. Give all dimensions."
        )
    return tuple(whole)
