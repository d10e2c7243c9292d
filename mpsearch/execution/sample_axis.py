"""Where the samples of a batch stand in the outputs of layers, found by rolling a batch."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Final, final

import torch
from jaxtyping import Shaped
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from mpsearch.errors import MeasurementError
from mpsearch.execution.interpreter import Override, evaluate, on_device_of
from mpsearch.tracing.operators import layer_operator
from mpsearch.tracing.traced_model import TracedModel

_PROBED: Final = 3  # samples; with two, rolling and swapping the layout can look the same
# Kernels may sum a sample otherwise at another place of the batch.
_RELATIVE: Final = 1e-3
_ABSOLUTE: Final = 1e-4  # of the largest number


@final
@dataclass(frozen=True, kw_only=True)
class SampleAxis:
    """Samples stand in the dimension `axis`, with other things outside or inside of them.

    Token-major rows (T x S, F) have `is_inner`; sample-major ones (S x T, F) have not.
    """

    axis: int = 0
    is_inner: bool = False

    def samples_first(self, values: Tensor, samples: int) -> Shaped[Tensor, "S N ..."]:
        """Return (samples, what stands beside them, the dimensions behind)."""
        before, behind = prod(values.shape[: self.axis]), values.shape[self.axis + 1 :]
        beside = values.shape[self.axis] // samples
        middle = (beside, samples) if self.is_inner else (samples, beside)
        split = values.reshape(before, *middle, *behind)
        first = split.movedim(2 if self.is_inner else 1, 0)
        return first.reshape(samples, before * beside, *behind)


@final
@dataclass(frozen=True, kw_only=True)
class SampleAxes:
    """The axis of each node that runs a layer; `shared` ones give the same for all samples.

    With `is_one_by_one`, samples have to be run alone: some layer gives all of them one
    output that cannot be repeated for each.
    """

    axes: Mapping[str, SampleAxis]
    shared: frozenset[str] = frozenset()
    is_one_by_one: bool = False
    bytes_per_sample: int = 0


def find_sample_axes(traced: TracedModel, batch: Mapping[str, Tensor]) -> SampleAxes:
    """Run a few samples, run them rolled by one place, and see where the outputs moved.

    `bytes_per_sample` are those of all node values together.

    Raises:
        MeasurementError: A sample's output depends on the others.
    """
    names = {name for nodes in traced.nodes.values() for name in nodes}
    samples = min(_PROBED, len(next(iter(batch.values()))))
    few = {name: value[:samples] for name, value in on_device_of(traced, batch).items()}
    values, output, size = _values(traced, few, names=names)
    if samples == 1:
        axes = dict.fromkeys(names, SampleAxis())
        return SampleAxes(axes=axes, is_one_by_one=True, bytes_per_sample=size)
    rolled = {name: value.roll(1, 0) for name, value in few.items()}
    moved, moved_output, _ = _values(traced, rolled, names=names)
    for before, after in zip(output, moved_output, strict=True):
        if len(before) == samples and not _agree(before.roll(1, 0), after):
            raise MeasurementError(
                "The output of a sample depends on which other samples are in its batch. Expected "
                "samples that do not see each other. Use a metric without gradients."
            )
    found = {name: _axis(values[name], moved[name], samples=samples) for name in names}
    shared = frozenset(name for name, axis in found.items() if axis is None)
    fits = not shared or _repeats(traced, few, shared=shared, output=output)
    return SampleAxes(
        axes={name: axis or SampleAxis() for name, axis in found.items()},
        shared=shared if fits else frozenset(),
        is_one_by_one=not fits,
        bytes_per_sample=size // samples,
    )


def bytes_per_sample(traced: TracedModel, batch: Mapping[str, Tensor]) -> int:
    """Return how many bytes all node values of one of the batch's samples take."""
    alone = {name: value[:1] for name, value in on_device_of(traced, batch).items()}
    return max(1, _values(traced, alone, names=set())[2])


def repeated(operator: Any, samples: int) -> Override:  # noqa: ANN401 - any operator of torch
    """Return the operator with its one output repeated for each of `samples`."""

    def compute(*args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401 - an operator's arguments
        value = operator(*args, **kwargs)
        assert isinstance(value, Tensor)
        return value.expand(samples, *value.shape[1:])

    return compute


def _values(
    traced: TracedModel, batch: Mapping[str, Tensor], *, names: set[str]
) -> tuple[dict[str, Tensor], list[Tensor], int]:
    kept: dict[str, Tensor] = {}
    size = 0

    def keep(node: fx.Node, value: Any) -> Any:  # noqa: ANN401 - any node's value
        nonlocal size
        if node.name in names:
            kept[node.name] = _reduced(node, value)
        if isinstance(value, Tensor) and node.op != "get_attr":
            size += value.numel() * value.element_size()
        return value

    with torch.no_grad():
        raw = evaluate(traced, batch, after=keep)
    return kept, _tensors(raw), size


def _reduced(node: fx.Node, value: Tensor) -> Tensor:
    """Return mean squares over features, which tell samples apart and take little memory."""
    operator = layer_operator(node)
    is_conv = operator is not None and operator.op.is_convolution
    rows = value.flatten(start_dim=1) if is_conv else value
    return rows.double().square().mean(dim=-1)


def _tensors(raw: Any) -> list[Tensor]:  # noqa: ANN401 - models return tensors, tuples, dicts
    return [leaf for leaf in pytree.tree_leaves(raw) if isinstance(leaf, Tensor) and leaf.ndim]


def _axis(value: Tensor, moved: Tensor, *, samples: int) -> SampleAxis | None:
    """Return the layout under which `moved` is `value` rolled by one sample."""
    sizes = value.shape
    places = sorted(range(len(sizes)), key=lambda place: sizes[place] != samples)
    for place in places:
        if sizes[place] % samples or not sizes[place]:
            continue
        for is_inner in (False, True):
            axis = SampleAxis(axis=place, is_inner=is_inner)
            before = axis.samples_first(value, samples).roll(1, 0)
            if _agree(before, axis.samples_first(moved, samples)):
                return axis
    return None


def _agree(one: Tensor, other: Tensor) -> bool:
    largest = float(one.abs().max()) if one.numel() else 0.0
    return torch.allclose(
        one.double(), other.double(), rtol=_RELATIVE, atol=_ABSOLUTE * largest, equal_nan=True
    )


def _repeats(
    traced: TracedModel,
    batch: Mapping[str, Tensor],
    *,
    shared: frozenset[str],
    output: list[Tensor],
) -> bool:
    """Return whether the model takes the shared outputs once per sample."""
    samples = len(next(iter(batch.values())))
    nodes = [node for node in traced.module.graph.nodes if node.name in shared]
    overrides = {node.name: repeated(node.target, samples) for node in nodes}
    try:
        with torch.no_grad():
            again = _tensors(evaluate(traced, batch, overrides=overrides))
    except RuntimeError:
        return False
    return all(
        before.shape == after.shape and _agree(before, after)
        for before, after in zip(output, again, strict=True)
    )
