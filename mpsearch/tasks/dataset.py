"""Batches on disk: read once, then iterated as often as needed with one batch in memory."""

import hashlib
import json
import logging
import math
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeAlias, final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mpsearch.core.cache import content_hash
from mpsearch.core.files import write_atomically
from mpsearch.errors import DataError

Batch: TypeAlias = Mapping[str, Tensor]

_LOG = logging.getLogger("mpsearch.tasks")
_INDEX: Final = "index.json"
# What fingerprints of inputs that a model made for itself begin with, through every split.
SYNTHETIC: Final = "synthetic:"


@final
@dataclass(frozen=True, kw_only=True)
class StoredBatch:
    """One file of samples: their places in the source, and which rows count (None: all)."""

    file: str
    places: tuple[int, ...]
    rows: tuple[int, ...] | None = None


@final
@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Batches in a folder; iterating loads one at a time. The first dimension is samples.

    `fingerprint` is a hash of every number, name and the cut into batches. Keys that are no
    inputs of the model are labels, or an attention mask that only the task needs.
    """

    folder: Path
    batches: tuple[StoredBatch, ...]
    fingerprint: str

    @property
    def samples(self) -> int:
        """Return the number of samples."""
        return sum(len(batch.places) for batch in self.batches)

    @property
    def is_synthetic(self) -> bool:
        """Whether these are no data, but inputs made from the model's own weights."""
        return self.fingerprint.startswith(SYNTHETIC)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        for stored in self.batches:
            batch = self._load(stored.file)
            if stored.rows is not None:
                rows = torch.tensor(stored.rows)
                batch = {name: tensor[rows] for name, tensor in batch.items()}
            yield batch

    def split(self, share: float) -> tuple["Dataset", "Dataset"]:
        """Return the first samples and the last `share` of them, in the order of the source.

        Raises:
            DataError: A part would be empty.
        """
        held_out = math.ceil(share * self.samples)
        if not 0 < held_out < self.samples:
            raise DataError(
                f"{self.samples} samples cannot be split to keep {share:.0%} for validation. "
                "Expected at least one sample on each side. Give more samples, or validation data."
            )
        places = sorted(place for batch in self.batches for place in batch.places)
        return (
            self._restricted_to(frozenset(places[:-held_out])),
            self._restricted_to(frozenset(places[-held_out:])),
        )

    def take(self, count: int) -> "Dataset":
        """Return the first `count` samples in the order of the source, or all if there are fewer.

        Raises:
            DataError: `count` is not positive.
        """
        if count < 1:
            raise DataError(f"{count} samples were asked for. Expected at least 1. Ask for more.")
        places = sorted(place for batch in self.batches for place in batch.places)
        return self if count >= len(places) else self._restricted_to(frozenset(places[:count]))

    def _restricted_to(self, places: frozenset[int]) -> "Dataset":
        kept = [
            (batch, [row for row, place in enumerate(batch.places) if place in places])
            for batch in self.batches
        ]
        batches = tuple(_rows_of(batch, rows) for batch, rows in kept if rows)
        origin = SYNTHETIC if self.is_synthetic else ""
        fingerprint = origin + content_hash(self.fingerprint, sorted(places))
        return replace(self, batches=batches, fingerprint=fingerprint)

    def _load(self, file: str) -> dict[str, Tensor]:
        path = self.folder / file
        try:
            return load_file(path)
        except (OSError, SafetensorError) as error:
            raise DataError(
                f"Stored batch {str(path)!r} cannot be read: {error}. Expected the file that was "
                "written when the data was read. Read the data again."
            ) from error


def spill(batches: Iterable[tuple[Batch, Sequence[int]]], *, folder: Path) -> Dataset:
    """Write (batch, places of its samples in the source) to a subfolder named by content.

    The same content is kept once; a damaged copy is replaced, and a warning says so.

    Raises:
        DataError: There is no sample.
    """
    folder.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=folder, prefix=".reading-"))
    try:
        stored, digests = [], {}
        content = hashlib.sha256()
        for number, (batch, places) in enumerate(batches):
            file = f"batch_{number:06d}.safetensors"
            save_file(
                {name: t.detach().cpu().contiguous() for name, t in batch.items()}, scratch / file
            )
            digests[file] = _digest(scratch / file)
            content.update(f"{digests[file]}{list(places)}".encode())
            stored.append(StoredBatch(file=file, places=tuple(places)))
        if not stored:
            raise DataError(
                "The data has no sample. Expected at least one batch. Check the source: a "
                "generator can be read only once."
            )
        write_atomically(scratch / _INDEX, json.dumps(digests).encode())
        fingerprint = content.hexdigest()
        _settle(scratch, folder / fingerprint)
        return Dataset(folder=folder / fingerprint, batches=tuple(stored), fingerprint=fingerprint)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _rows_of(batch: StoredBatch, rows: Sequence[int]) -> StoredBatch:
    """Return the batch with only these of its rows."""
    if len(rows) == len(batch.places):
        return batch
    before = batch.rows or tuple(range(len(batch.places)))
    return replace(
        batch,
        places=tuple(batch.places[row] for row in rows),
        rows=tuple(before[row] for row in rows),
    )


def _settle(scratch: Path, target: Path) -> None:
    """Move `scratch` to `target`, unless an intact copy is there."""
    if target.exists():
        if _is_intact(target):
            return
        _LOG.warning("Stored data %s is damaged; it was read again.", target)
        shutil.rmtree(target)
    try:
        scratch.rename(target)
    except OSError:
        # Another process has settled the same content in between.
        if not _is_intact(target):
            raise


def _is_intact(target: Path) -> bool:
    try:
        digests = json.loads((target / _INDEX).read_bytes())
        return all(_digest(target / file) == digest for file, digest in digests.items())
    except (OSError, ValueError):
        return False


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
