"""How the output changes with one layer in one format: kept, so that changes can be added up.

A plan's predicted output is that of full precision (or of a plan that the changes were
measured around) plus the changes of its layers, summed before the last normalisation.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, final

import numpy as np
import torch
from jaxtyping import Float16, Float64, UInt8
from numpy import ndarray
from torch import Tensor

from mpsearch.core.cache import Cache, content_hash
from mpsearch.core.progress import Progress, tracked
from mpsearch.errors import MeasurementError
from mpsearch.execution import PrefixStore, run
from mpsearch.execution.interpreter import Override, evaluate, on_device_of
from mpsearch.sensitivity.change_request import ChangeRequest
from mpsearch.sensitivity.divergence import Divergence
from mpsearch.sensitivity.identity import task_identity
from mpsearch.sensitivity.output_cut import OutputCut, Tail, find_cut, watching
from mpsearch.sensitivity.request import Work
from mpsearch.tasks import Batch

_KIND: Final = "output_changes"
# Part of every cache key; raise it when the same input would give other numbers.
_REVISION: Final = 1
# Beyond, changes are kept of the first samples of each batch only; their losses of all.
LARGEST_BYTES: Final = 1 << 30
_HALF_BYTES: Final = 2
_NUMBER: Final = 8


@final
@dataclass(frozen=True, kw_only=True)
class Change:
    """What one layer in one format does to a batch: losses per sample, and the change itself.

    `half` holds the change at the cut of the first samples, divided by `scale`, on disk
    where there is a cache.
    """

    squared: Float64[ndarray, " S"]
    divergence: Float64[ndarray, " S"]
    scale: float
    half: Float16[ndarray, "..."]

    def tensor(self) -> Tensor:
        """Return the change in single precision."""
        return torch.from_numpy(self.half.astype(np.float32)) * self.scale


@final
@dataclass(frozen=True, kw_only=True)
class BatchChanges:
    """The changes of one batch around a pass whose cut holds `value`.

    Without a cut, `value` is the task's output itself and `tail` None. Changes are kept of
    the first `rows` samples.
    """

    batch: Batch
    divergence: Divergence
    tail: Tail | None
    value: Tensor
    rows: int
    changes: Mapping[tuple[str, str], Change]


@final
@dataclass(frozen=True, kw_only=True)
class OutputChanges:
    """All changes, and the exact losses of single layers that came with them.

    `squared` and `divergence` are means over all samples of the whole loss with one layer
    of `request.around` changed; NaN where a pair was not asked for.
    """

    request: ChangeRequest
    cut: OutputCut | None
    batches: tuple[BatchChanges, ...]
    layers: tuple[str, ...]
    formats: tuple[str, ...]
    squared: Float64[ndarray, "S L F"]
    divergence: Float64[ndarray, "S L F"]
    work: Work = field(default_factory=Work)

    def at(self, temperature: float) -> "OutputChanges":
        """Return what predicts divergences at another temperature; `divergence` stays."""
        return replace(
            self,
            request=replace(self.request, temperature=temperature),
            batches=tuple(
                replace(each, divergence=each.divergence.at(temperature)) for each in self.batches
            ),
        )


def measure_changes(
    request: ChangeRequest,
    *,
    cache: Cache | None,
    progress: Progress | None = None,
    phase: str = "measure sensitivity",
    largest_bytes: int = LARGEST_BYTES,
) -> OutputChanges:
    """Run every pair of layer and format once, from the layer on, and keep what comes out.

    Each pair of each batch is in the cache as soon as it is measured: a run that is killed
    measures at most one twice.

    Raises:
        MeasurementError: An output is not finite.
    """
    cut, passes, share = _passes(request, cache=cache, largest_bytes=largest_bytes)
    _run(passes, tuple(request.pairs), share=share, phase=phase, progress=progress)
    formats = tuple(dict.fromkeys(name for names in request.pairs.values() for name in names))
    layers = request.traced.graph.names
    return OutputChanges(
        request=request,
        cut=cut,
        batches=tuple(each.result(share) for each in passes),
        layers=layers,
        formats=formats,
        squared=np.concatenate([each.losses("squared", formats) for each in passes]),
        divergence=np.concatenate([each.losses("divergence", formats) for each in passes]),
        work=sum((each.work for each in passes), Work()),
    )


def measure_layers(
    request: ChangeRequest,
    layers: Sequence[str],
    *,
    cache: Cache,
    progress: Progress | None = None,
    phase: str = "measure sensitivity",
    largest_bytes: int = LARGEST_BYTES,
) -> Work:
    """Bring into the cache what `measure_changes` of the same request finds for some layers.

    So several processes share the work: what each keeps has the bits that one would have.

    Raises:
        MeasurementError: An output is not finite.
    """
    _, passes, share = _passes(request, cache=cache, largest_bytes=largest_bytes)
    _run(passes, layers, share=share, phase=phase, progress=progress)
    return sum((each.work for each in passes), Work())


def missing_pairs(
    request: ChangeRequest, *, cache: Cache, largest_bytes: int = LARGEST_BYTES
) -> dict[str, int]:
    """Return for each layer how many pairs of format and batch are not in the cache."""
    _, passes, share = _passes(request, cache=cache, largest_bytes=largest_bytes)
    return {
        layer: sum(each.missing(layer, share=share) for each in passes) for layer in request.pairs
    }


def _passes(
    request: ChangeRequest, *, cache: Cache | None, largest_bytes: int
) -> tuple[OutputCut | None, list["_Pass"], float]:
    """Return the cut, each batch, and the share of samples whose changes are kept."""
    cut = find_cut(request.traced, [layer for layer, names in request.pairs.items() if names])
    passes = [_Pass(request, batch, cut=cut, cache=cache) for batch in request.data]
    share = _share(passes, pairs=sum(map(len, request.pairs.values())), largest=largest_bytes)
    return cut, passes, share


def _run(
    passes: Sequence["_Pass"],
    layers: Sequence[str],
    *,
    share: float,
    phase: str,
    progress: Progress | None,
) -> None:
    steps = [(each, layer) for each in passes for layer in layers]
    for each, layer in tracked(steps, phase, total=len(steps), progress=progress):
        each.measure(layer, share=share)
        if layer == layers[-1]:
            each.let_go()


@final
class _Pass:
    """One batch while it is measured; its activations are kept for as long as they serve."""

    def __init__(
        self, request: ChangeRequest, batch: Batch, *, cut: OutputCut | None, cache: Cache | None
    ) -> None:
        self.work = Work()
        self._request, self._batch, self._cut = request, batch, cut
        self._around = request.plan_overrides(request.around)
        self._changes: dict[tuple[str, str], Change] = {}
        self._store: PrefixStore | None = None
        task = request.task
        self._tail = None if cut is None else Tail(request.traced, batch, cut=cut)
        raw = run(request.traced, batch) if self._tail is None else self._tail.raw
        reference = task.outputs(raw, batch)
        self._divergence = request.divergence(reference, batch)
        self.value = self._value_around(reference)
        identity = task_identity(task)
        self._cache = cache if identity is not None else None
        self._key = content_hash(_REVISION, identity, request.key, *_numbers(batch))

    def measure(self, layer: str, *, share: float) -> None:
        """Read or measure a layer in every format asked for."""
        for name in self._request.pairs[layer]:
            key = self._pair_key(layer, name, share=share)
            stored = None if self._cache is None else self._cache.map_bytes(_KIND, key)
            if stored is None:
                change = self._measured(layer, name, rows=self._rows(share))
                if self._cache is not None:
                    self._cache.put_bytes(_KIND, key, content=_packed(change))
                    stored = self._cache.map_bytes(_KIND, key)
                self.work += Work(measured_pairs=1)
            else:
                self.work += Work(cached_pairs=1)
            if stored is not None:
                shape = (self._rows(share), *self.value.shape[1:])
                change = _unpacked(stored, samples=len(self.value), shape=shape)
            self._changes[layer, name] = change

    def missing(self, layer: str, *, share: float) -> int:
        """Return how many formats of a layer are not in the cache."""
        keys = (self._pair_key(layer, name, share=share) for name in self._request.pairs[layer])
        return sum(self._cache is None or not self._cache.holds(_KIND, key) for key in keys)

    def let_go(self) -> None:
        """Drop the activations: no layer of this batch is measured any more."""
        self._store = None

    def result(self, share: float) -> BatchChanges:
        """Return what was measured."""
        return BatchChanges(
            batch=self._batch,
            divergence=self._divergence,
            tail=self._tail,
            value=self.value,
            rows=self._rows(share),
            changes=self._changes,
        )

    def losses(self, kind: str, formats: Sequence[str]) -> Float64[ndarray, "S L F"]:
        """Return the losses per sample of each pair."""
        layers = self._request.traced.graph.names
        found = np.full((len(self.value), len(layers), len(formats)), np.nan)
        for (layer, name), change in self._changes.items():
            found[:, layers.index(layer), formats.index(name)] = getattr(change, kind)
        return found

    def _pair_key(self, layer: str, name: str, *, share: float) -> str:
        how = self._request.format_key(layer, name)
        return content_hash(self._key, layer, how, self._rows(share))

    def _rows(self, share: float) -> int:
        return max(1, math.floor(share * len(self.value)))

    def _value_around(self, reference: Tensor) -> Tensor:
        """Return what the cut holds in the pass that is changed."""
        if not self._around:
            return reference if self._tail is None else self._tail.value
        return self._seen(self._around, store=None)[0]

    def _measured(self, layer: str, name: str, *, rows: int) -> Change:
        if self._store is None:
            self._store = PrefixStore(self._request.traced, self._batch, around=self._around)
            self._store.check_finite()
            self.work += Work(macs=self._store.full_macs)
        before = self._store.macs
        value, output = self._seen(self._request.overrides(layer, name), store=self._store)
        self.work += Work(macs=self._store.macs - before, full_macs=self._store.full_macs)
        squared = self._divergence.squared(output)
        if not bool(np.isfinite(squared).all()):
            raise MeasurementError(
                f"Layer {layer!r} in {name!r} makes the output NaN or infinite for "
                f"{int((~np.isfinite(squared)).sum())} of {len(squared)} samples. Expected finite "
                "outputs. Leave this format out for the layer."
            )
        change = (value - self.value)[:rows].cpu().numpy()
        # Half precision holds numbers from 6e-5 to 65504; dividing keeps any change in there.
        scale = float(np.abs(change).max()) or 1.0
        return Change(
            squared=squared,
            divergence=self._divergence.samples(output),
            scale=scale,
            half=(change / scale).astype(np.float16),
        )

    def _seen(
        self, overrides: Mapping[str, Override], *, store: PrefixStore | None
    ) -> tuple[Tensor, Tensor]:
        """Return what the cut holds under the overrides, and the task's output."""
        traced, batch, seen = self._request.traced, self._batch, list[Tensor]()
        watched = dict(overrides)
        if self._cut is not None:
            around = self._around.get(self._cut.node)
            base = {self._cut.node: around} if around is not None else {}
            watched = watching(traced, self._cut, overrides={**base, **overrides}, seen=seen)
        with torch.no_grad():
            if store is None:
                raw = evaluate(traced, on_device_of(traced, batch), overrides=watched)
            else:
                raw = store.rerun(watched)
            output = self._request.task.outputs(raw, batch)
        return (seen[0] if seen else output), output


def _share(passes: Sequence[_Pass], *, pairs: int, largest: int) -> float:
    """Return of which share of the samples changes can be kept."""
    whole = sum(each.value.numel() for each in passes) * pairs * _HALF_BYTES
    return min(1.0, largest / whole) if whole else 1.0


def _numbers(batch: Batch) -> Iterator[object]:
    for name, value in sorted(batch.items()):
        yield [name, str(value.dtype)]
        yield value.cpu().contiguous().numpy()


def _packed(change: Change) -> bytes:
    head = np.concatenate([change.squared, change.divergence, [change.scale]])
    return head.astype(np.float64).tobytes() + change.half.tobytes()


def _unpacked(stored: UInt8[ndarray, " N"], *, samples: int, shape: tuple[int, ...]) -> Change:
    split = _NUMBER * (2 * samples + 1)
    head = np.array(stored[:split]).view(np.float64)
    return Change(
        squared=head[:samples],
        divergence=head[samples:-1],
        scale=float(head[-1]),
        half=stored[split:].view(np.float16).reshape(shape),
    )
