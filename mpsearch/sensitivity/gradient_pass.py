"""Backward passes over batches, and what they say of every layer and format."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal, TypeAlias, final

import numpy as np
import torch
from jaxtyping import Float, Float32
from numpy import ndarray
from torch import Tensor

from mpsearch.errors import MeasurementError
from mpsearch.execution import PrefixStore
from mpsearch.execution.sample_axis import SampleAxes, find_sample_axes
from mpsearch.execution.tapped import Tap, TappedPass
from mpsearch.sensitivity.local_products import LocalProducts
from mpsearch.sensitivity.request import PlacedBatch, Request, Work, parts_of
from mpsearch.tasks import Batch

# Outputs of some samples and their places -> what to differentiate them along, per draw.
Direction: TypeAlias = Callable[[Tensor, PlacedBatch, int], Tensor]
# The layers and formats that are asked for.
Pairs: TypeAlias = Mapping[str, Sequence[str]]
Found: TypeAlias = dict[tuple[str, str], Float32[ndarray, " S"]]

# What is summed of each layer: g dY or its squares per format, or the squared norm of the
# gradient of its weight, which has one column whatever it is called.
Local: TypeAlias = Literal["inner", "squares", "norms"]

# Activations, their gradients and what the operators keep for the backward pass.
_COPIES: Final = 3


@final
class GradientPass:
    """Runs forward once and backward once per draw, over parts that fit the memory limit."""

    def __init__(self, request: Request, *, direction: Direction, local: Local = "inner") -> None:
        self._request = request
        self._direction = direction
        self._local = local
        self._axes: SampleAxes | None = None
        self._products: LocalProducts | None = None
        self.work = Work()

    def measure(self, placed: PlacedBatch, wanted: Mapping[int, Pairs]) -> dict[int, Found]:
        """Return, for each draw, the values of its pairs per sample of the batch."""
        axes = self._axes_of(placed)
        products = LocalProducts(self._request, axes) if self._products is None else self._products
        if axes is self._axes:
            self._products = products
        parts = [
            self._part(part, axes=axes, products=products, wanted=wanted)
            for part in parts_of(placed, size=self._part_size(axes, placed))
        ]
        return {
            draw: {pair: np.concatenate([part[draw][pair] for part in parts]) for pair in found}
            for draw, found in parts[0].items()
        }

    def _axes_of(self, placed: PlacedBatch) -> SampleAxes:
        if self._axes is not None:
            return self._axes
        found = find_sample_axes(self._request.traced, placed.batch)
        if len(placed.places) > 1:  # One sample does not show where samples stand.
            self._axes = found
        return found

    def _part_size(self, axes: SampleAxes, placed: PlacedBatch) -> int:
        if axes.is_one_by_one:
            return 1
        limit = self._request.memory_limit_bytes
        if limit is None:
            return len(placed.places)
        # The other half is for changes of weights and per-sample gradients.
        return max(1, limit // 2 // (_COPIES * max(axes.bytes_per_sample, 1)))

    def _part(
        self,
        part: PlacedBatch,
        *,
        axes: SampleAxes,
        products: LocalProducts,
        wanted: Mapping[int, Pairs],
    ) -> dict[int, Found]:
        tapped = TappedPass(self._request.traced, part.batch, axes=axes)
        outputs = self._outputs(tapped, part.batch)
        found: dict[int, Found] = {}
        for draw, pairs in wanted.items():
            products.begin()
            sums = _Sums(products, pairs=pairs, local=self._local)
            tapped.backward(
                outputs,
                direction=self._direction(outputs.detach(), part, draw),
                use=sums.add_,
                is_last=draw == max(wanted),
            )
            found[draw] = sums.found(len(part.places))
        macs = sum(layer.macs for layer in self._request.traced.graph.layers)
        example = len(next(iter(self._request.traced.example.values())))
        per_sample = macs // example
        self.work += Work(
            macs=per_sample * len(part.places) * (1 + len(wanted)) + products.macs,
            full_macs=per_sample * len(part.places) * sum(map(len, found.values())),
        )
        products.macs = 0
        return found

    def _outputs(self, tapped: TappedPass, batch: Batch) -> Float[Tensor, "S ..."]:
        with torch.enable_grad():
            outputs = self._request.task.outputs(tapped.output, batch)
        if not bool(torch.isfinite(outputs).all()):
            PrefixStore(self._request.traced, batch).check_finite()
            raise MeasurementError(
                "The model's output at full precision holds NaN or infinity, though every layer is "
                "finite. Expected finite outputs. Check the operators after the last layer."
            )
        if not outputs.requires_grad:
            raise MeasurementError(
                f"Task {self._request.task.name!r} returns outputs without a gradient: they are "
                "whole numbers, or cut off from the layers. Expected an output that follows from "
                "the layers by operators with derivatives. Choose metric 'output_error' or "
                "'masked_error', which need none."
            )
        return outputs


class _Sums:
    """Adds up what the nodes of each layer give."""

    def __init__(self, products: LocalProducts, *, pairs: Pairs, local: Local) -> None:
        self._products = products
        self._pairs = pairs
        self._local = local
        self._sums: dict[str, Tensor] = {}

    def add_(self, tap: Tap) -> None:
        layer = self._products.layer_of(tap)
        names = self._pairs.get(layer, ())
        if not names:
            return
        with torch.no_grad():
            if self._local == "norms":
                value = self._products.norms(tap)
            elif self._local == "squares":
                value = self._products.squares(tap, names)
            else:
                value = self._products.inner(tap, names)
        self._sums[layer] = self._sums[layer] + value if layer in self._sums else value

    def found(self, samples: int) -> Found:
        """Return the sums; zeros where no gradient arrived."""
        nothing = np.zeros(samples, dtype=np.float32)
        return {
            (layer, name): self._sums[layer][:, place].float().cpu().numpy()
            if layer in self._sums
            else nothing
            for layer, names in self._pairs.items()
            for place, name in enumerate(names)
        }
