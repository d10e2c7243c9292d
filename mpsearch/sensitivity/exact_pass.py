"""The output with one layer changed, again and again over one batch, from that layer on."""

from collections.abc import Iterator, Mapping
from math import prod
from typing import Final, final

import torch
from jaxtyping import Float
from torch import Tensor

from mpsearch.errors import MeasurementError
from mpsearch.execution import PrefixStore
from mpsearch.execution.interpreter import Override
from mpsearch.sensitivity.request import Request, Work
from mpsearch.tasks import Batch

# Of the limit, one part may fill with activations that are alive at once, stored ones apart.
_LIVING_SHARE: Final = 4
_LIVING_COPIES: Final = 4  # of a layer's input and output, through norms and residual sums
_FLOAT_BYTES: Final = 4


@final
class ExactPass:
    """One batch: the full-precision outputs, and those with some nodes computed otherwise.

    The full-precision pass runs at the first need. Under a memory limit the batch is run in
    parts, whose stored activations go to disk beyond it.
    """

    def __init__(self, request: Request, batch: Batch) -> None:
        self._request = request
        self._batch = batch
        self._stores: list[PrefixStore] = []
        self._reference: Tensor | None = None
        self.work = Work()

    @property
    def reference(self) -> Float[Tensor, "S ..."]:
        """Return the outputs at full precision.

        Raises:
            MeasurementError: A layer or the output is not finite.
        """
        if self._reference is None:
            self._run_reference_()
        assert self._reference is not None
        return self._reference

    def outputs(self, overrides: Mapping[str, Override]) -> Float[Tensor, "S ..."]:
        """Return the outputs with some nodes computed otherwise; not checked for NaN."""
        assert len(self.reference) > 0
        before = sum(store.macs for store in self._stores)
        raw = (store.rerun(overrides) for store in self._stores)
        found = self._joined(
            [
                self._request.task.outputs(each, part)
                for each, part in zip(raw, self._parts(), strict=True)
            ]
        )
        self.work += Work(
            macs=sum(store.macs for store in self._stores) - before,
            full_macs=sum(store.full_macs for store in self._stores),
        )
        return found

    def _run_reference_(self) -> None:
        parts = list(self._parts())
        limit = self._request.memory_limit_bytes
        share = None if limit is None else limit // 2 // len(parts)
        outputs = []
        for part in parts:
            store = PrefixStore(self._request.traced, part, limit_bytes=share)
            store.check_finite()
            self._stores.append(store)
            outputs.append(self._request.task.outputs(store.output, part))
            self.work += Work(macs=store.full_macs)
        self._reference = self._joined(outputs)
        if not bool(torch.isfinite(self._reference).all()):
            raise MeasurementError(
                "The model's output at full precision holds NaN or infinity, though every "
                "layer is finite. Expected finite outputs. Check the operators after the last "
                "layer."
            )

    def _joined(self, parts: list[Tensor]) -> Tensor:
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _parts(self) -> Iterator[Batch]:
        samples = len(next(iter(self._batch.values())))
        size = self._part_size(samples)
        for start in range(0, samples, size):
            yield {
                name: value[start : start + size] if len(value) == samples else value
                for name, value in self._batch.items()
            }

    def _part_size(self, samples: int) -> int:
        limit = self._request.memory_limit_bytes
        if limit is None:
            return samples
        traced = self._request.traced
        largest = max(
            prod(layer.input_shape) + prod(layer.output_shape) for layer in traced.graph.layers
        )
        example = traced.example[traced.input_names[0]]
        # Longer sequences than the example's need more.
        growth = self._batch[traced.input_names[0]].numel() / samples / max(example.numel(), 1)
        living = _LIVING_COPIES * _FLOAT_BYTES * largest * growth
        return max(1, int(limit / _LIVING_SHARE / max(living, 1)))
