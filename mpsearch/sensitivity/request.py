"""What a metric is asked for, what it costs, and what it finds."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, final

import numpy as np
from jaxtyping import Float32, Float64
from numpy import ndarray

from mpsearch.core.cache import Cache, content_hash
from mpsearch.core.formats import Format
from mpsearch.core.plan import ActivationQuantizer
from mpsearch.core.progress import Progress
from mpsearch.errors import DataError
from mpsearch.tasks import AbstractTask, Batch, Dataset
from mpsearch.tracing import TracedModel

PHASE: Final = "measure sensitivity"  # what progress calls the passes over the data


@final
@dataclass(frozen=True, kw_only=True)
class Work:
    """What a measurement cost: multiply-accumulates run, and those of a pass for each pair.

    A pair is a layer and a format, counted once per batch. What comes from the cache is in
    `cached_pairs` only.
    """

    macs: int = 0
    full_macs: int = 0
    measured_pairs: int = 0
    cached_pairs: int = 0

    @property
    def share(self) -> float:
        """Return the share that was run of one whole pass per measured pair."""
        return self.macs / self.full_macs if self.full_macs else 0.0

    def __add__(self, other: "Work") -> "Work":
        return Work(
            macs=self.macs + other.macs,
            full_macs=self.full_macs + other.full_macs,
            measured_pairs=self.measured_pairs + other.measured_pairs,
            cached_pairs=self.cached_pairs + other.cached_pairs,
        )


@final
@dataclass(frozen=True, kw_only=True)
class PlacedBatch:
    """A batch, the places of its samples in the source, and a hash of all its numbers."""

    batch: Batch
    places: tuple[int, ...]
    key: str


def parts_of(placed: PlacedBatch, *, size: int) -> Iterator[PlacedBatch]:
    """Yield the batch in parts of at most `size` samples; what has no samples stays whole."""
    samples = len(placed.places)
    for start in range(0, samples, size):
        rows = slice(start, start + size)
        yield PlacedBatch(
            batch={
                name: value[rows] if len(value) == samples else value
                for name, value in placed.batch.items()
            },
            places=placed.places[rows],
            key=placed.key,
        )


@final
@dataclass(frozen=True, kw_only=True)
class Request:
    """What a metric is asked for, checked: only pairs in `pairs` are to be measured.

    `pairs` maps each layer to the formats that it can take and that differ from the
    reference, in the order of `formats`. `memory_limit_bytes` bounds stored activations;
    None means no bound.
    """

    traced: TracedModel
    task: AbstractTask
    data: Dataset
    formats: Mapping[str, Format]
    pairs: Mapping[str, tuple[str, ...]]
    quantizers: Mapping[str, ActivationQuantizer]
    dynamic_group: int | None
    cache: Cache | None
    progress: Progress | None
    seed: int
    memory_limit_bytes: int | None = None
    _seen: dict[int, str] = field(default_factory=dict, repr=False)

    def batches(self) -> Iterator[PlacedBatch]:
        """Yield the batches of one pass.

        Raises:
            DataError: A batch holds other numbers than in an earlier pass.
        """
        for number, (batch, stored) in enumerate(zip(self.data, self.data.batches, strict=True)):
            parts: list[object] = []
            for name, value in sorted(batch.items()):
                parts += [name, str(value.dtype), value.cpu().contiguous().numpy()]
            key = content_hash(*parts)
            if self._seen.setdefault(number, key) != key:
                raise DataError(
                    f"Batch {number} of the data holds other numbers than in the pass before. "
                    "Expected the same data in every pass. Read the data again, and let nothing "
                    "write to its folder meanwhile."
                )
            yield PlacedBatch(batch=batch, places=stored.places, key=key)


@final
@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What a metric found: losses with their standard errors, NaN where not asked for.

    `numbers` are as in `SensitivityTable`. Layers in `unreached` cannot change the output,
    and have no losses.
    """

    loss: Float64[ndarray, "L F"]
    stderr: Float64[ndarray, "L F"]
    samples: int
    numbers: Float32[ndarray, "N L F"] | None = None
    unreached: frozenset[str] = frozenset()
    work: Work = field(default_factory=Work)


def measurement_of_samples(
    errors: Float64[ndarray, "S L F"], *, work: Work | None = None
) -> Measurement:
    """Return means over samples with standard errors s / sqrt(S).

    A single sample says nothing about its spread: its standard error is NaN.
    """
    return Measurement(
        loss=errors.mean(axis=0),
        stderr=standard_error(errors),
        samples=len(errors),
        work=work or Work(),
    )


def measurement_of_numbers(
    numbers: Float32[ndarray, "S D L F"], *, work: Work | None = None
) -> Measurement:
    """Return mean squares of signed numbers, D draws of each of S samples.

    The draws of one sample share its data, so standard errors are those over samples.
    """
    squares = np.square(numbers.astype(np.float64))
    samples, draws, *pair = numbers.shape
    return Measurement(
        loss=squares.mean(axis=(0, 1)),
        stderr=standard_error(squares.mean(axis=1)),
        samples=samples,
        numbers=numbers.reshape(samples * draws, *pair),
        work=work or Work(),
    )


def standard_error(values: Float64[ndarray, "S *pair"]) -> Float64[ndarray, "*pair"]:
    """Return the standard error of the mean over the first axis; NaN of a single value."""
    if len(values) == 1:
        return np.full(values.shape[1:], np.nan)
    error: ndarray = values.std(axis=0, ddof=1) / math.sqrt(len(values))
    return error
