"""What a plan really loses: forward passes of the model behaving as if it were deployed."""

from collections.abc import Mapping
from typing import Final, final

import numpy as np
import torch
from jaxtyping import Float64
from numpy import ndarray

from mpsearch.core.cache import Cache, content_hash
from mpsearch.execution import run
from mpsearch.execution.interpreter import evaluate, on_device_of
from mpsearch.sensitivity.change_request import ChangeRequest
from mpsearch.sensitivity.divergence import Divergence, telling_temperature, temperatures_of
from mpsearch.sensitivity.identity import task_identity
from mpsearch.tasks import Batch

_KIND: Final = "true_loss"
# Part of every cache key; raise it when the same input would give other numbers.
_REVISION: Final = 2


@final
class TrueLoss:
    """Measures divergences on data of its own; each assignment is run once, then remembered.

    `passes` counts the forwards over the whole data that were asked for, whether they were
    run or came from the cache, so that a budget of them is spent alike on every run.
    `temperature` is that of the divergences returned, 1 unless `settle` chose another.
    """

    def __init__(self, request: ChangeRequest, *, cache: Cache | None) -> None:
        self._request = request
        self._batches = list(request.data)
        self._temperatures = temperatures_of(request.task)
        self._reference: list[tuple[Divergence, ...]] = []
        self._known: dict[tuple[tuple[str, str], ...], Float64[ndarray, "T S"]] = {}
        identity = task_identity(request.task)
        self._cache = cache if identity is not None else None
        self._key = content_hash(_REVISION, identity, request.key, request.data.fingerprint)
        self.passes = 0
        self.temperature = self._temperatures[0]

    @property
    def samples(self) -> int:
        """Return how many samples a loss is the mean of."""
        return self._request.data.samples

    def settle(self, assignment: Mapping[str, str]) -> None:
        """Take the temperature at which this assignment's divergence tells most."""
        rows = self._every(assignment)
        self.temperature = telling_temperature(dict(zip(self._temperatures, rows, strict=True)))

    def loss(self, assignment: Mapping[str, str]) -> float:
        """Return the mean divergence of an assignment."""
        return float(self.per_sample(assignment).mean())

    def per_sample(self, assignment: Mapping[str, str]) -> Float64[ndarray, " S"]:
        """Return the divergence of each sample."""
        row: Float64[ndarray, " S"] = self._every(assignment)[
            self._temperatures.index(self.temperature)
        ]
        return row

    def _every(self, assignment: Mapping[str, str]) -> Float64[ndarray, "T S"]:
        identity = tuple(sorted(assignment.items()))
        if identity not in self._known:
            self.passes += 1
            self._known[identity] = self._found(assignment)
        return self._known[identity]

    def _found(self, assignment: Mapping[str, str]) -> Float64[ndarray, "T S"]:
        formats = {layer: self._request.format_key(layer, n) for layer, n in assignment.items()}
        key = content_hash(self._key, formats)
        stored = None if self._cache is None else self._cache.get_bytes(_KIND, key)
        if stored is not None:
            rows: Float64[ndarray, "T S"] = np.frombuffer(stored, dtype=np.float64).reshape(
                len(self._temperatures), -1
            )
            return rows
        losses = self._measured(assignment)
        if self._cache is not None:
            self._cache.put_bytes(_KIND, key, content=losses.tobytes())
        return losses

    def _measured(self, assignment: Mapping[str, str]) -> Float64[ndarray, "T S"]:
        traced, task = self._request.traced, self._request.task
        if not self._reference:
            self._reference = [self._references(batch) for batch in self._batches]
        overrides = self._request.plan_overrides(assignment)
        found = []
        with torch.no_grad():
            for batch, references in zip(self._batches, self._reference, strict=True):
                raw = evaluate(traced, on_device_of(traced, batch), overrides=overrides)
                outputs = task.outputs(raw, batch)
                found.append(np.stack([each.samples(outputs) for each in references]))
        return np.concatenate(found, axis=1)

    def _references(self, batch: Batch) -> tuple[Divergence, ...]:
        full = self._request.task.outputs(run(self._request.traced, batch), batch)
        plain = self._request.divergence(full, batch)
        return tuple(plain.at(temperature) for temperature in self._temperatures)
