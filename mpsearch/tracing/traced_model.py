"""The one form of a model inside mpsearch: an FX graph that knows which nodes are layers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from jaxtyping import Float
from torch import Tensor, fx
from torch.export import ExportedProgram

from mpsearch.core.graph import LayerGraph
from mpsearch.errors import DataError
from mpsearch.tracing.onnx_import.model import OnnxModel


@final
@dataclass(frozen=True, kw_only=True)
class TracedModel:
    """A model as a graph of standard torch operators, with its layers by name.

    `module` holds the parameters under their original paths and shares their memory with
    the model that was traced. `nodes` maps a layer to the call nodes that run it (several
    if its weight is used several times), `weights` to the path of its weight in `module`;
    products of two activations have none.
    `input_names` are in the order of the graph's placeholders, `output_names` in that of
    its flat outputs. `program` is what the base ONNX file is made from, unless the graph
    comes from such a file itself: then that is `origin`.
    """

    module: fx.GraphModule
    graph: LayerGraph
    nodes: Mapping[str, tuple[str, ...]]
    weights: Mapping[str, str]
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    example: Mapping[str, Tensor]
    program: ExportedProgram | None = None
    origin: OnnxModel | None = None

    def weight(self, layer: str) -> Float[Tensor, "..."]:
        """Return a layer's weight; the tensor itself, not a copy."""
        return tensor_at(self.module, self.weights[layer])

    def inputs(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Return the model's inputs out of a batch, in the order of the placeholders.

        Raises:
            DataError: An input is missing, or its rank or size differs from what was traced.
        """
        missing = [name for name in self.input_names if name not in batch]
        if missing:
            raise DataError(
                f"The batch lacks the input {missing[0]!r} and holds {sorted(batch)}. Expected "
                f"{list(self.input_names)}. Rename or add the keys of the data."
            )
        for name, node in zip(self.input_names, placeholders(self.module), strict=True):
            _check_shape(name, batch[name], expected=node.meta.get("val"))
        return tuple(batch[name] for name in self.input_names)


def placeholders(module: fx.GraphModule) -> tuple[fx.Node, ...]:
    """Return the nodes that stand for the model's inputs."""
    return tuple(node for node in module.graph.nodes if node.op == "placeholder")


def tensor_at(module: Any, path: str) -> Tensor:  # noqa: ANN401 - any object with attributes
    """Return the parameter, buffer or constant under a dotted path."""
    found = module
    for part in path.split("."):
        found = getattr(found, part)
    if not isinstance(found, Tensor):
        raise TypeError(path)
    return found


def _check_shape(name: str, value: Tensor, *, expected: object) -> None:
    if not isinstance(expected, Tensor):
        return
    # A size that is no plain int is dynamic.
    sizes = [size if type(size) is int else None for size in expected.shape]
    fits = len(sizes) == value.ndim and all(
        size in (None, found) for size, found in zip(sizes, value.shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if size is None else str(size) for size in sizes)
        raise DataError(
            f"Input {name!r} has shape {tuple(value.shape)}. Expected ({wanted}). "
            "Change the data, or trace the model with an example of this shape."
        )
