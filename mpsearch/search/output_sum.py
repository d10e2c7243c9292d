"""Score plans without a forward pass: the changes of their layers, summed in output space."""

from collections.abc import Mapping, Sequence
from typing import Final, final

import numpy as np
import torch
from jaxtyping import Float64
from numpy import ndarray

from mpsearch.sensitivity.change_request import ChangeRequest
from mpsearch.sensitivity.output_changes import BatchChanges, OutputChanges

# Changes of all layers are held in memory as one block up to this many numbers.
_LARGEST_BLOCK: Final = 1 << 26
# That many numbers are summed at once when many plans are scored together.
_AT_ONCE: Final = 1 << 24


@final
class OutputSum:
    """Predicts the divergence of assignments from changes that were measured one at a time.

    A layer that keeps its format of `changes.request.around` adds nothing; layers behind the
    cut are computed in the format they get. `samples` limits the data, for a quicker look.
    """

    def __init__(self, changes: OutputChanges, *, samples: int | None = None) -> None:
        self._changes = changes
        self._around = changes.request.around
        self._behind = () if changes.cut is None else changes.cut.behind
        self._batches: list[tuple[BatchChanges, int]] = []
        for batch in changes.batches:
            left = batch.rows if samples is None else samples - self.samples
            if left > 0:
                self._batches.append((batch, min(batch.rows, left)))
        self._block: _Block | None = None

    @property
    def samples(self) -> int:
        """Return how many samples a prediction is the mean of."""
        return sum(rows for _, rows in self._batches)

    @property
    def numbers(self) -> int:
        """Return how many numbers are summed per layer."""
        return sum(rows * each.value[0].numel() for each, rows in self._batches)

    def predicted(self, assignments: Sequence[Mapping[str, str]]) -> Float64[ndarray, " N"]:
        """Return the mean predicted divergence of each assignment.

        Raises:
            KeyError: A pair of layer and format was not measured.
        """
        if self._is_plain:
            return self._at_once(assignments)
        return np.array([float(self.per_sample(each).mean()) for each in assignments])

    def per_sample(self, assignment: Mapping[str, str]) -> Float64[ndarray, " S"]:
        """Return the predicted divergence of each sample."""
        request = self._changes.request
        overrides = request.plan_overrides(
            {layer: assignment.get(layer, "fp32") for layer in self._behind}
        )
        found = []
        for each, rows in self._batches:
            value = each.value.clone()
            for layer, name in self._different(assignment):
                value[:rows] += each.changes[layer, name].tensor()[:rows]
            if each.tail is None:
                output = value
            else:
                raw = each.tail.run(value, overrides=overrides)
                output = request.task.outputs(raw, each.batch)
            found.append(each.divergence.samples(output)[:rows])
        return np.concatenate(found)

    def _different(self, assignment: Mapping[str, str]) -> list[tuple[str, str]]:
        return [
            (layer, name)
            for layer, name in assignment.items()
            if layer not in self._behind and name != self._around.get(layer, "fp32")
        ]

    @property
    def _is_plain(self) -> bool:
        """Return whether the cut is the output itself, one row per sample, and small."""
        task = self._changes.request.task
        return all(
            each.value.ndim == len(("sample", "feature"))
            and (each.tail is None or (each.tail.is_empty and task.name == "classification"))
            and self.numbers * len(each.changes) <= _LARGEST_BLOCK
            for each, _ in self._batches
        )

    def _at_once(self, assignments: Sequence[Mapping[str, str]]) -> Float64[ndarray, " N"]:
        if self._block is None:
            self._block = _Block(self._batches, request=self._changes.request)
        chunk = max(1, _AT_ONCE // max(self.numbers, 1))
        parts = [
            self._block.predicted([self._different(each) for each in assignments[at : at + chunk]])
            for at in range(0, len(assignments), chunk)
        ]
        return np.concatenate([np.zeros(0), *parts])


@final
class _Block:
    """All changes of small outputs in one matrix, so that a product sums those of many plans."""

    def __init__(
        self, batches: Sequence[tuple[BatchChanges, int]], *, request: ChangeRequest
    ) -> None:
        pairs = list(batches[0][0].changes)
        self._place = {pair: place for place, pair in enumerate(pairs)}
        self._value = torch.cat([each.value[:rows] for each, rows in batches])
        self._changes = torch.stack(
            [torch.cat([each.changes[p].tensor()[:rows] for each, rows in batches]) for p in pairs]
        )
        reference = torch.cat([each.divergence.reference[:rows] for each, rows in batches])
        self._divergence = request.divergence(reference, {"rows": reference})

    def predicted(self, plans: Sequence[Sequence[tuple[str, str]]]) -> Float64[ndarray, " N"]:
        chosen = torch.zeros(len(plans), len(self._place))
        for row, pairs in enumerate(plans):
            chosen[row, [self._place[pair] for pair in pairs]] = 1.0
        summed = (chosen @ self._changes.flatten(start_dim=1)).view(-1, *self._value.shape)
        return self._divergence.of_many(self._value + summed)
