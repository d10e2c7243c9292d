"""What the function of an operator gets: a node, its inputs and its attributes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar, cast, final

import torch
from torch import Tensor

from mpsearch.errors import ModelError
from mpsearch.tracing.onnx_import.graph import OnnxNode
from mpsearch.tracing.onnx_import.tensors import ONNX_TYPES
from mpsearch.tracing.onnx_import.values import (
    MOST_NUMBERS,
    Known,
    Size,
    Value,
    as_tensor,
    check_size,
    known_constant,
)

T = TypeVar("T")
Result: TypeAlias = Value | Sequence[Value | None]


@final
class NodeCall:
    """One run of a node. Inputs are named by their place, attributes by their name."""

    def __init__(self, node: OnnxNode, values: Sequence[Value | None]) -> None:
        self.node = node
        self.values = tuple(values)

    @property
    def version(self) -> int:
        """Return the version of the operator set."""
        return self.node.version

    @property
    def outputs(self) -> int:
        """Return how many outputs the node names."""
        return len(self.node.outputs)

    def has(self, place: int) -> bool:
        """Return whether an optional input is there."""
        return place < len(self.values) and self.values[place] is not None

    def wants(self, place: int) -> bool:
        """Return whether an optional output is asked for."""
        return place < len(self.node.outputs) and bool(self.node.outputs[place])

    def value(self, place: int) -> Value:
        """Return an input as it is.

        Raises:
            ModelError: It is not there.
        """
        found = self.values[place] if place < len(self.values) else None
        if found is None:
            raise self.wrong(f"lacks its input {place}", "all inputs that the operator needs")
        return found

    def tensor(self, place: int) -> Tensor:
        """Return an input as a tensor."""
        return as_tensor(self.value(place))

    def optional(self, place: int) -> Tensor | None:
        """Return an optional input as a tensor, None where it is left out."""
        return self.tensor(place) if self.has(place) else None

    def tensors(self) -> list[Tensor]:
        """Return all inputs as tensors."""
        return [self.tensor(place) for place in range(len(self.values))]

    def known(self, place: int) -> Known:
        """Return an input whose numbers decide about shapes or the way through the graph.

        Raises:
            ModelError: They depend on the data, so no fixed graph can follow them.
        """
        found = self.value(place)
        if isinstance(found, Tensor) and not torch.compiler.is_exporting():
            found = known_constant(found) if found.numel() <= MOST_NUMBERS else found
            if isinstance(found, Tensor):
                return Known(array=found.numpy().astype(object), dtype=found.dtype)
        if isinstance(found, Tensor):
            name = self.node.inputs[place]
            raise self.wrong(
                f"reads {name!r}, which depends on the data",
                "numbers that are constant or follow from the shapes of the inputs",
            )
        return found

    def is_known(self, place: int) -> bool:
        """Return whether the numbers of an input are known while tracing."""
        found = self.value(place)
        return isinstance(found, Known) or not torch.compiler.is_exporting()

    def element_type(self, place: int) -> int:
        """Return the element type of an input in ONNX, which has more types than torch."""
        declared = self.node.types[place] if place < len(self.node.types) else 0
        value = self.value(place)
        return declared or ONNX_TYPES[value.dtype]

    def sizes(self, place: int) -> list[Size]:
        """Return a known input as a list of sizes, axes or the like."""
        return self.numbers(place)

    def numbers(self, place: int) -> list[Any]:
        """Return a known input as a list of numbers and symbols."""
        return list(self.known(place).array.reshape(-1))

    def integers(self, place: int) -> list[int]:
        """Return a known input as plain whole numbers."""
        return [int(each) for each in self.numbers(place)]

    def scalar(self, place: int) -> Any:  # noqa: ANN401 - a number or a symbol
        """Return a known input of one number."""
        numbers = self.numbers(place)
        if len(numbers) != 1:
            raise self.wrong(f"has {len(numbers)} numbers as input {place}", "one")
        return numbers[0]

    def attribute(self, name: str, default: T) -> T:
        """Return an attribute, or its default."""
        found = self.node.attributes.get(name, default)
        if default is not None and not isinstance(found, type(default)):
            kind = type(default).__name__
            raise self.wrong(f"has {found!r} as attribute {name!r}", f"one of type {kind}")
        return cast("T", found)

    def needed(self, name: str, kind: type[T]) -> T:
        """Return an attribute that has no default.

        Raises:
            ModelError: It is not there, or of another type.
        """
        found = self.node.attributes.get(name)
        if not isinstance(found, kind):
            raise self.wrong(f"has {found!r} as attribute {name!r}", f"a {kind.__name__}")
        return found

    def integers_of(self, name: str, place: int) -> list[int] | None:
        """Return axes and the like, which newer operator sets take as input `place`."""
        if self.has(place):
            return self.integers(place)
        found = self.node.attributes.get(name)
        if found is None:
            return None
        return [found] if isinstance(found, int) else list(found)

    def checked(self, sizes: Sequence[Size]) -> list[Size]:
        """Return the sizes of a tensor to be made, unless they are absurd."""
        check_size(sizes, title=self.node.title)
        return list(sizes)

    def wrong(self, fact: str, expected: str) -> ModelError:
        """Return the error to raise about this node."""
        return ModelError(
            f"Node {self.node.title!r} ({self.node.op}) {fact}. Expected {expected}. Change the "
            "model where it is exported."
        )


Operator: TypeAlias = Callable[[NodeCall], Result]
Operators: TypeAlias = Mapping[str, Operator]
