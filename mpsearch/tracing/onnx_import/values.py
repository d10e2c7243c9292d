"""Values while a graph runs: tensors, and small ones whose numbers are known while tracing.

Sizes of tensors are numbers of a program, not of its data: they may be symbols (a dynamic
batch). An ONNX file computes with them in tensors (Shape, Gather, Concat, Reshape), so such
tensors are carried as arrays of Python numbers and symbols, and become tensors where an
operator needs one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, final

import numpy as np
import torch
from numpy import ndarray
from torch import SymInt, Tensor
from torch.utils._python_dispatch import _disable_current_modes

from mpsearch.errors import ModelError

Size: TypeAlias = int | SymInt
# Long enough for sizes, axes and paddings; what is longer is data.
MOST_KNOWN: Final = 64
# A tensor of more numbers than this (4 GiB in float32) is taken for a mistake or an attack.
MOST_NUMBERS: Final = 2**30


@final
@dataclass(frozen=True, kw_only=True)
class Known:
    """A tensor whose numbers are known: an array of Python numbers and symbols, and its type.

    `tensor` is the same as a constant of the model, where it is one.
    """

    array: ndarray
    dtype: torch.dtype
    tensor: Tensor | None = None

    @property
    def is_symbolic(self) -> bool:
        """Return whether a number is a symbol."""
        return any(not isinstance(each, bool | int | float) for each in self.array.flat)


Value: TypeAlias = Tensor | Known


def known(numbers: Any, *, dtype: torch.dtype = torch.int64) -> Known:  # noqa: ANN401 - nested numbers and symbols
    """Return numbers and symbols as a known value.

    Example:
        >>> known([2, 3]).array.shape, known(4).array.shape
        ((2,), ())
    """
    if isinstance(numbers, ndarray):
        return Known(array=numbers.astype(object), dtype=dtype)
    array = np.empty(np.shape(_outline(numbers)), dtype=object)
    for place in np.ndindex(array.shape):
        found = numbers
        for index in place:
            found = found[index]
        array[place] = found
    return Known(array=array, dtype=dtype)


def known_constant(tensor: Tensor) -> Value:
    """Return a constant of the model with its numbers where it is short, else the tensor."""
    is_plain = not tensor.is_complex() and tensor.dtype.itemsize > 0
    if tensor.numel() > MOST_KNOWN or not is_plain or "float8" in str(tensor.dtype):
        return tensor
    array = np.empty(tuple(tensor.shape), dtype=object)
    with _disable_current_modes():  # a constant is no part of what is traced
        flat = tensor.detach().reshape(-1).tolist()
    array.reshape(-1)[:] = flat
    return Known(array=array, dtype=tensor.dtype, tensor=tensor)


def first_number(tensor: Tensor) -> float | int | bool:
    """Return the first number of a constant."""
    with _disable_current_modes():  # as above
        number: float | int | bool = tensor.reshape(-1)[0].item()
    return number


def as_tensor(value: Value) -> Tensor:
    """Return the tensor of a value; symbols become scalars of the graph."""
    if isinstance(value, Tensor):
        return value
    if value.tensor is not None:
        return value.tensor
    # Not by `torch.tensor`, which torch.export writes with an operator in place.
    if not value.array.size:
        return torch.zeros(value.array.shape, dtype=value.dtype)
    scalars = [torch.scalar_tensor(each, dtype=value.dtype) for each in value.array.flat]
    return torch.stack(scalars).reshape(value.array.shape)


def check_size(sizes: Sequence[Size], *, title: str) -> None:
    """Refuse a tensor that is too large to be meant.

    Raises:
        ModelError: It has more than 2^30 numbers, or a negative size.
    """
    plain = [size for size in sizes if isinstance(size, int)]
    if math.prod(plain) > MOST_NUMBERS or any(size < 0 for size in plain):
        raise ModelError(
            f"Node {title!r} makes a tensor of the shape ({', '.join(map(str, sizes))}). Expected "
            f"at most {MOST_NUMBERS} numbers and no negative size. Check the shapes of the model."
        )


def larger(first: Any, second: Any) -> Any:  # noqa: ANN401 - numbers or symbols
    """Return the larger of two numbers or symbols."""
    return torch.sym_max(first, second)  # type: ignore[no-untyped-call]  # torch does not annotate it


def smaller(first: Any, second: Any) -> Any:  # noqa: ANN401 - as in `larger`
    """Return the smaller of two numbers or symbols."""
    return torch.sym_min(first, second)  # type: ignore[no-untyped-call]  # as in `larger`


def as_float(number: Any) -> Any:  # noqa: ANN401 - as in `larger`
    """Return a number or symbol as a floating one."""
    return torch.sym_float(number)  # type: ignore[no-untyped-call]  # as in `larger`


def as_whole(number: Any) -> Any:  # noqa: ANN401 - as in `larger`
    """Return a number or symbol without its fraction."""
    if isinstance(number, bool | int | float):
        return int(number)
    return torch.sym_int(number)  # type: ignore[no-untyped-call]  # as in `larger`


def root(number: Any) -> Any:  # noqa: ANN401 - as in `larger`
    """Return the square root of a number or symbol."""
    return math.sqrt(number) if isinstance(number, int | float) else torch.sym_sqrt(number)


def _outline(numbers: Any) -> Any:  # noqa: ANN401 - as in `known`
    """Return zeros in the same nesting, since NumPy must not look into symbols."""
    return [_outline(each) for each in numbers] if isinstance(numbers, list | tuple) else 0
