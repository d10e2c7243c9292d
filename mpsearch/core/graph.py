"""The layers of a model that can change their format, and how tensors flow between them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Final, final

from mpsearch.errors import ProblemError, UnknownLayerError

_PRODUCT: Final = "@matmul"  # what the names of products hold, and no path of a module
_SECOND: Final = ":second"


class Op(StrEnum):
    """What a layer computes."""

    LINEAR = "linear"
    CONV = "conv"
    CONV_TRANSPOSE = "conv_transpose"
    EMBEDDING = "embedding"
    PRODUCT = "product"

    @property
    def is_convolution(self) -> bool:
        """Whether a small weight slides over its input."""
        return self in {Op.CONV, Op.CONV_TRANSPOSE}


@final
@dataclass(frozen=True, kw_only=True)
class Layer:
    """One operator with a weight, or a product of two activations, which has none.

    `name` is the path of its weight without `.weight`, or see `product_name`. `weight_shape` is
    (outputs, inputs of each output, ...), however the weight lies in the model, and () without
    one. Shapes are those of the example inputs, `input_shape` that of a product's first input.
    `macs` counts multiply-accumulates of one forward pass over them, all `calls` together.
    `inputs_from` says which tensor it reads: layers with the same value share it.
    `fused` names what a kernel may compute along with it: a batch norm, an activation. `runs`
    counts forward passes of one inference: the steps of a diffusion, the tokens decoded.
    """

    name: str
    op: Op
    weight_shape: tuple[int, ...]
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    macs: int
    inputs_from: str
    calls: int = 1
    fused: tuple[str, ...] = ()
    runs: int = 1

    @property
    def parameters(self) -> int:
        """Return how many numbers the weight holds; a product has none."""
        count = 1 if self.weight_shape else 0
        for size in self.weight_shape:
            count *= size
        return count

    @property
    def signature(self) -> str:
        """Return what makes two layers cost the same: operator and shapes."""
        shapes = (self.weight_shape, self.input_shape, self.output_shape)
        return f"{self.op}:" + ":".join("x".join(map(str, shape)) for shape in shapes)


@final
@dataclass(frozen=True, kw_only=True)
class LayerGraph:
    """Layers in order of execution, and edges (producer, consumer) as indices into them.

    An edge says that a tensor flows from producer to consumer through operators without a
    weight. Layers in one tuple of `shared_weights` (indices) hold the same weight.
    `other_parameters` counts numbers that belong to no layer (biases, norms).
    `residuals` are layers (indices) whose outputs are added to each other. `additions` maps each
    residual addition that can be quantised to the layer that it belongs to.
    `left_out` says of weights that belong to no layer, by path, why they have no formats.
    `fingerprint` is a hash of structure and weights.
    """

    layers: tuple[Layer, ...]
    edges: tuple[tuple[int, int], ...]
    shared_weights: tuple[tuple[int, ...], ...] = ()
    other_parameters: int = 0
    residuals: tuple[tuple[int, ...], ...] = ()
    additions: Mapping[str, str] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    fingerprint: str

    @property
    def left_out_told(self) -> tuple[str, ...]:
        """Return a sentence that names the weights without formats, where there are any."""
        if not self.left_out:
            return ()
        named = "; ".join(f"{path} ({reason})" for path, reason in self.left_out.items())
        return (f"{len(self.left_out)} weights belong to no layer and stay as they are: {named}.",)

    @property
    def names(self) -> tuple[str, ...]:
        """Return the layers' names in order of execution."""
        return tuple(layer.name for layer in self.layers)

    @property
    def shared_inputs(self) -> tuple[tuple[int, ...], ...]:
        """Return the layers (indices) that read one tensor, each group with two or more."""
        groups: dict[str, list[int]] = {}
        for place, layer in enumerate(self.layers):
            groups.setdefault(layer.inputs_from, []).append(place)
        return tuple(tuple(group) for group in groups.values() if len(group) > 1)

    def with_runs(self, runs: Mapping[str, int]) -> "LayerGraph":
        """Return the graph with the forward passes of one inference, by name or pattern.

        Bit operations, and estimates of latency and energy, count every run; bytes do not.

        Raises:
            UnknownLayerError: A pattern matches nothing.
            ProblemError: A number of runs is below 1.

        Example:
            `graph.with_runs({"unet.*": 20})` for a denoiser that takes 20 steps.
        """
        found: dict[str, int] = {}
        for pattern, count in runs.items():
            if count < 1:
                raise ProblemError(
                    f"Layers {pattern!r} run {count} times. Expected at least 1. Correct it."
                )
            found |= dict.fromkeys(self.matching(pattern), count)
        layers = tuple(replace(each, runs=found.get(each.name, each.runs)) for each in self.layers)
        return replace(self, layers=layers)

    def index(self, name: str) -> int:
        """Return the place of the layer called `name`.

        Raises:
            UnknownLayerError: No layer has this name.
        """
        if name not in self.names:
            raise UnknownLayerError(
                f"Layer {name!r} is not in the model. Expected one of {len(self.layers)} layers "
                f"such as {', '.join(map(repr, self.names[:3]))}. `mpsearch measure` lists them."
            )
        return self.names.index(name)

    def matching(self, pattern: str) -> tuple[str, ...]:
        """Return the names that a shell-style pattern, or a plain name, matches.

        Raises:
            UnknownLayerError: The pattern matches nothing.
        """
        found = tuple(name for name in self.names if fnmatchcase(name, pattern))
        if not found:
            raise UnknownLayerError(
                f"Pattern {pattern!r} matches no layer. Expected a name or a pattern such as "
                f"{self.names[0]!r} or '*.{self.names[-1].rsplit('.', 1)[-1]}'. "
                "`mpsearch measure` lists the names."
            )
        return found


def product_name(owner: str, *, number: int) -> str:
    """Return what a product of two activations is called: its module, and its place in there.

    Example:
        >>> product_name("block.attention", number=0), product_name("block.attention", number=1)
        ('block.attention@matmul', 'block.attention@matmul_1')
    """
    return f"{owner}{_PRODUCT}" + (f"_{number}" if number else "")


def is_product_name(layer: str) -> bool:
    """Return whether a layer's name is that of a product of two activations."""
    return _PRODUCT in layer


def second_input(layer: str) -> str:
    """Return the key of the quantiser of a product's second input; the first has its name."""
    return f"{layer}{_SECOND}"
