"""Gradients at a layer's output against what each format changes there, sample by sample."""

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any, Final, final

import torch
from jaxtyping import Float
from torch import Tensor

from mpsearch.core.graph import Layer, Op
from mpsearch.execution.patches import patches, transposed_patches
from mpsearch.execution.sample_axis import SampleAxes
from mpsearch.execution.tapped import Tap
from mpsearch.execution.weight_changes import WeightChanges, changes_weight_only
from mpsearch.sensitivity.request import Request
from mpsearch.tracing.operators import LayerOperator, layer_operator
from mpsearch.tracing.trace import layer_macs
from mpsearch.tracing.weight_layout import as_in_model

_CHUNK_BYTES: Final = 2**26  # of per-sample gradients and patches that exist at once
_FLOAT_BYTES: Final = 4
# Of a memory limit: what may be kept of changed weights, and what exists at once.
_KEPT_SHARE: Final = 4
_CHUNK_SHARE: Final = 8


@final
class LocalProducts:
    """Per sample, sums of g x dY or of (g x dY)^2 for every format of a layer.

    g is the gradient at a node's output Y, dY what the format changes there, all else at
    full precision. A format that changes only the weight has dY = operator(x, dW), whose
    product with g equals <dW, gradient of the weight> of the sample: that gradient is made
    once for all formats, one product in place of one per format.

    `macs` are the multiply-accumulates run so far.
    """

    def __init__(self, request: Request, axes: SampleAxes) -> None:
        self._request = request
        self._axes = axes
        self._layers = {
            node: layer
            for layer in request.traced.graph.layers
            for node in request.traced.nodes[layer.name]
        }
        limit = request.memory_limit_bytes
        self._chunk_bytes = (
            _CHUNK_BYTES if limit is None else min(_CHUNK_BYTES, limit // _CHUNK_SHARE)
        )
        self._changes = WeightChanges(
            request.traced,
            request.formats,
            quantizers=request.quantizers,
            dynamic_group=request.dynamic_group,
            limit_bytes=None if limit is None else limit // _KEPT_SHARE,
        )
        self._earlier: dict[str, Tensor] = {}
        self._earlier_rows: dict[str, tuple[Tensor, Tensor]] = {}
        self.macs = 0

    def begin(self) -> None:
        """Forget the calls of the last backward pass."""
        self._earlier.clear()
        self._earlier_rows.clear()

    def norms(self, tap: Tap) -> Float[Tensor, "S 1"]:
        """Return the squared norm of each sample's gradient of the weight.

        Of several calls of a layer, each adds what it changes of the norm of their sum.
        """
        layer = self._layers[tap.node.name]
        if layer.op is Op.EMBEDDING:
            return self._rows_norms(tap, layer)[:, None]
        parts = (part.flatten(start_dim=1) for part in self._gradients_of_weight(tap, layer))
        if layer.calls == 1:
            return torch.cat([part.square().sum(dim=1, keepdim=True) for part in parts])
        found = torch.cat(list(parts))
        before = self._earlier.get(layer.name, torch.zeros_like(found))
        self._earlier[layer.name] = before + found
        # |a + b|^2 - |a|^2, without its cancellation.
        return ((2 * before + found) * found).sum(dim=1, keepdim=True)

    def _rows_norms(self, tap: Tap, layer: Layer) -> Float[Tensor, " S"]:
        """Rows that are looked up several times have the sum of their gradients."""
        axis = self._axes.axes[tap.node.name]
        ids = axis.samples_first(_rows(tap.args[_operator(tap).input], tap), tap.samples)
        found = (
            ids.flatten(start_dim=1).double(),
            axis.samples_first(_gradient(tap), tap.samples).flatten(1, -2).double(),
        )
        known = self._earlier_rows.get(layer.name)
        joined = found if known is None else _joined(known, found)
        self._earlier_rows[layer.name] = joined
        return (_lookup_norm(*joined) - (0.0 if known is None else _lookup_norm(*known))).float()

    def layer_of(self, tap: Tap) -> str:
        """Return the name of the layer that the tap's node runs."""
        return self._layers[tap.node.name].name

    def inner(self, tap: Tap, names: Sequence[str]) -> Float[Tensor, "S F"]:
        """Return the sum of g x dY of each sample, in each of the formats called `names`."""
        layer = self._layers[tap.node.name]
        shared = [name for name in names if self._is_of_weight(layer, name)]
        found: dict[str, Tensor] = {}
        if self._has_gradient_of_weight(tap) and len(shared) > 1 and self._positions(tap) > 1:
            products = self._by_weight(tap, shared)
            found = dict(zip(shared, products.unbind(dim=1), strict=True))
        for name in names:
            if name not in found:
                found[name] = self._per_sample(tap, _gradient(tap) * self._change(tap, name))
        return torch.stack([found[name] for name in names], dim=1)

    def squares(self, tap: Tap, names: Sequence[str]) -> Float[Tensor, "S F"]:
        """Return the sum of (g x dY)^2 of each sample, in each of the formats."""
        terms = [(_gradient(tap) * self._change(tap, name)).square_() for name in names]
        return torch.stack([self._per_sample(tap, each) for each in terms], dim=1)

    def _is_of_weight(self, layer: Layer, name: str) -> bool:
        return changes_weight_only(
            layer.op, self._request.formats[name], dynamic_group=self._request.dynamic_group
        )

    def _has_gradient_of_weight(self, tap: Tap) -> bool:
        """An embedding looks rows up; a scaled product (addmm) is rare enough for the long way."""
        is_scaled = "alpha" in tap.kwargs or "beta" in tap.kwargs
        return self._layers[tap.node.name].op is not Op.EMBEDDING and not is_scaled

    def _positions(self, tap: Tap) -> int:
        """Return how many outputs of one unit a sample has."""
        outputs = self._layers[tap.node.name].weight_shape[0]
        return tap.value.numel() // (tap.samples * outputs)

    def _per_sample(self, tap: Tap, values: Tensor) -> Float[Tensor, " S"]:
        first = self._axes.axes[tap.node.name].samples_first(values, tap.samples)
        return first.flatten(start_dim=1).sum(dim=1)

    def _change(self, tap: Tap, name: str) -> Float[Tensor, "..."]:
        """Return dY of the node."""
        layer = self._layers[tap.node.name]
        self.macs += layer_macs(
            layer.op,
            weight=layer.weight_shape,
            given=tuple(tap.args[_operator(tap).input].shape),
            output=tuple(tap.value.shape),
        )
        if not self._is_of_weight(layer, name):
            changed: Tensor = self._changes.overrides(layer.name, name)[tap.node.name](
                *tap.args, **tap.kwargs
            )
            return changed - tap.value
        operator = _operator(tap)
        change = self._changes.change(layer.name, name)
        args = list(tap.args)
        args[operator.weight] = as_in_model(tap.node, change)
        for place in _bias_places(tap, operator):
            args[place] = torch.zeros_like(args[place])
        target: Any = tap.node.target
        kwargs = {key: value for key, value in tap.kwargs.items() if key != "bias"}
        result: Tensor = target(*args, **kwargs)
        return result

    def _by_weight(self, tap: Tap, names: Sequence[str]) -> Float[Tensor, "S F"]:
        """Return the products of each sample's gradient of the weight with the changes."""
        layer = self._layers[tap.node.name]
        self.macs += tap.samples * layer.parameters * (self._positions(tap) + len(names))
        rows = []
        for part in self._gradients_of_weight(tap, layer):
            gradient = part.flatten(start_dim=1)
            # One change at a time: all formats together may be larger than the model.
            changes = (self._changes.change(layer.name, name) for name in names)
            rows.append(torch.stack([gradient @ each.flatten() for each in changes], dim=1))
        return torch.cat(rows)

    def _gradients_of_weight(self, tap: Tap, layer: Layer) -> Iterator[Float[Tensor, "s ..."]]:
        return self._linear(tap) if layer.op is Op.LINEAR else self._convolved(tap, layer)

    def _chunks(self, tap: Tap, *, each: int) -> Iterator[slice]:
        size = max(1, self._chunk_bytes // (_FLOAT_BYTES * each))
        for start in range(0, tap.samples, size):
            yield slice(start, start + size)

    def _linear(self, tap: Tap) -> Iterator[Float[Tensor, "s O I"]]:
        operator = _operator(tap)
        x, g = (
            self._axes.axes[tap.node.name]
            .samples_first(_rows(each, tap), tap.samples)
            .flatten(1, -2)
            for each in (tap.args[operator.input], _gradient(tap))
        )
        for rows in self._chunks(tap, each=x.shape[-1] * g.shape[-1]):
            yield torch.bmm(g[rows].transpose(1, 2), x[rows])

    def _convolved(self, tap: Tap, layer: Layer) -> Iterator[Float[Tensor, "s G O K"]]:
        axis = self._axes.axes[tap.node.name]
        x = axis.samples_first(tap.args[0], tap.samples)
        g = axis.samples_first(_gradient(tap), tap.samples)
        frames, kernel = x.shape[1], prod(layer.weight_shape[1:])
        places = prod(g.shape[3:])
        groups = x.shape[2] // layer.weight_shape[1]
        taken = transposed_patches if layer.op is Op.CONV_TRANSPOSE else patches
        weight = layer.weight_shape[0] * kernel
        for rows in self._chunks(tap, each=max(weight, groups * kernel * frames * places)):
            call = (x[rows].flatten(0, 1), *tap.args[1:])
            found = taken(call, tap.kwargs).reshape(-1, frames, groups, kernel, places)
            direction = g[rows].reshape(len(found), frames, groups, -1, places)
            yield torch.einsum("sfgop,sfgkp->sgok", direction, found)


def _joined(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return torch.cat([one[0], other[0]], dim=1), torch.cat([one[1], other[1]], dim=1)


def _lookup_norm(ids: Float[Tensor, "S R"], g: Float[Tensor, "S R D"]) -> Float[Tensor, " S"]:
    """Return |sum over places of g, by row|^2."""
    same = ids[:, :, None] == ids[:, None, :]
    return (torch.bmm(g, g.transpose(1, 2)) * same).sum(dim=(1, 2))


def _operator(tap: Tap) -> LayerOperator:
    # Calls of one layer may be different operators, with the input at other places.
    operator = layer_operator(tap.node)
    assert operator is not None
    return operator


def _bias_places(tap: Tap, operator: LayerOperator) -> list[int]:
    """Return where the arguments hold a bias: nowhere, or at one place."""
    place = operator.bias
    has_bias = place is not None and place < len(tap.args) and tap.args[place] is not None
    return [place] if has_bias and place is not None else []


def _gradient(tap: Tap) -> Tensor:
    assert tap.gradient is not None
    return tap.gradient


def _rows(values: Tensor, tap: Tap) -> Tensor:
    """Return the input once per sample where all samples share one."""
    is_shared = len(values) == 1 and len(tap.value) == tap.samples
    return values.expand(tap.samples, *values.shape[1:]) if is_shared else values
