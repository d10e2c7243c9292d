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
from mpsearch.sensitivity.divergence import Divergence
from mpsearch.sensitivity.identity import task_identity

_KIND: Final = "true_loss"
# Part of every cache key; raise it when the same input would give other numbers.
_REVISION: Final = 1


@final
class TrueLoss:
    """Measures divergences on data of its own; each assignment is run once, then remembered.

    `passes` counts the forwards over the whole data that were asked for, whether they were
    run or came from the cache, so that a budget of them is spent alike on every run.
    """

    def __init__(self, request: ChangeRequest, *, cache: Cache | None) -> None:
        self._request = request
        self._batches = list(request.data)
        self._reference: list[Divergence] = []
        self._known: dict[tuple[tuple[str, str], ...], Float64[ndarray, " S"]] = {}
        identity = task_identity(request.task)
        self._cache = cache if identity is not None else None
        self._key = content_hash(_REVISION, identity, request.key, request.data.fingerprint)
        self.passes = 0

    @property
    def samples(self) -> int:
        """Return how many samples a loss is the mean of."""
        return self._request.data.samples

    def loss(self, assignment: Mapping[str, str]) -> float:
        """Return the mean divergence of an assignment."""
        return float(self.per_sample(assignment).mean())

    def per_sample(self, assignment: Mapping[str, str]) -> Float64[ndarray, " S"]:
        """Return the divergence of each sample."""
        identity = tuple(sorted(assignment.items()))
        if identity not in self._known:
            self.passes += 1
            self._known[identity] = self._found(assignment)
        return self._known[identity]

    def _found(self, assignment: Mapping[str, str]) -> Float64[ndarray, " S"]:
        formats = {layer: self._request.format_key(layer, n) for layer, n in assignment.items()}
        key = content_hash(self._key, formats)
        stored = None if self._cache is None else self._cache.get_bytes(_KIND, key)
        if stored is not None:
            return np.frombuffer(stored, dtype=np.float64)
        losses = self._measured(assignment)
        if self._cache is not None:
            self._cache.put_bytes(_KIND, key, content=losses.tobytes())
        return losses

    def _measured(self, assignment: Mapping[str, str]) -> Float64[ndarray, " S"]:
        traced, task = self._request.traced, self._request.task
        if not self._reference:
            self._reference = [
                self._request.divergence(task.outputs(run(traced, batch), batch), batch)
                for batch in self._batches
            ]
        overrides = self._request.plan_overrides(assignment)
        found = []
        with torch.no_grad():
            for batch, reference in zip(self._batches, self._reference, strict=True):
                raw = evaluate(traced, on_device_of(traced, batch), overrides=overrides)
                found.append(reference.samples(task.outputs(raw, batch)))
        return np.concatenate(found)
