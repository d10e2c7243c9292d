"""Readers: a file, an array, text or any iterable of batches becomes a Dataset."""

import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias, final

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from mpsearch.errors import DataError
from mpsearch.tasks.collate import IDS, LABELS, MASK, TYPES, Sample, as_tensor, in_batches
from mpsearch.tasks.dataset import Batch, Dataset, spill
from mpsearch.tasks.images import image_batches, is_opened, prepared_images
from mpsearch.tasks.tables import is_table, table_records
from mpsearch.tasks.tokens import TEXT, load_tokenizer, tokenised

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# What NumPy says of a file that is damaged, or claims more numbers than there can be.
_UNREADABLE: Final = (
    *(OSError, ValueError, zipfile.BadZipFile, EOFError),
    *(OverflowError, MemoryError),
)

_Placed: TypeAlias = tuple[Batch, Sequence[int]]


def read_data(
    source: Any,  # noqa: ANN401 - whatever a user holds; refused below where it is no data
    *,
    input_names: Sequence[str],
    batch_size: int,
    folder: Path,
    limit: int | None = None,
    tokenizer: "Path | str | Tokenizer | None" = None,
    model: Path | None = None,
    decoder_start: int | None = None,
    example: Batch | None = None,
) -> Dataset:
    """Read data once, check it, and spill it to a subfolder of `folder`.

    Args:
        source: Path of an .npz without pickles, a .jsonl, a folder of images, a dataset saved
            by `datasets` or parquet; a tensor, array or mapping of them (first dimension:
            samples); strings; a torch `Dataset`; or any iterable of batches (tensors, tuples in
            the order of `input_names`, or dicts), such as a `DataLoader` (one that shuffles
            gives other data on every run, so nothing that was measured is found again); or a
            Dataset, which is returned.
        input_names: Names of the model's inputs. Other keys are labels.
        batch_size: Samples per batch where the source does not cut it.
        folder: Where data is kept.
        limit: Read at most this many samples.
        tokenizer: A `tokenizer.json` or its object, for text.
        model: Folder of the model, for images.
        decoder_start: The token that an answer begins with, for texts of an encoder-decoder.
        example: Example inputs of the model; data must have their dimensions.

    Raises:
        DataError: The data cannot be read or does not fit the model.
    """
    if limit is not None and limit < 1:
        raise DataError(f"The limit is {limit} samples. Expected at least 1. Raise the limit.")
    if isinstance(source, Dataset):
        data = source if limit is None else source.take(limit)
    else:
        reader = _Reader(
            input_names=tuple(input_names),
            batch_size=batch_size,
            limit=limit,
            tokenizer=tokenizer,
            model=model,
            decoder_start=decoder_start,
        )
        data = spill(reader.batches(source), folder=folder)
    if example is not None:
        check_fits(data, example)
    return data


def check_fits(data: Dataset, example: Batch) -> None:
    """Refuse data whose inputs differ from the example in kind or in a fixed dimension.

    The first dimension is free, and the second of whole numbers (length).

    Raises:
        DataError: A key is missing, or its shape or kind is another.
    """
    for batch in data:
        for name, expected in example.items():
            _require(name, batch)
            free = 1 if expected.is_floating_point() else 2
            found, wanted = batch[name].shape, expected.shape
            if len(found) != len(wanted) or found[free:] != wanted[free:]:
                pattern = ", ".join(
                    ["any"] * min(free, len(wanted)) + [str(n) for n in wanted[free:]]
                )
                raise DataError(
                    f"Key {name!r} has the shape {tuple(found)}. Expected ({pattern}), as in the "
                    "example inputs. Reshape the data."
                )
            if batch[name].is_floating_point() != expected.is_floating_point():
                raise DataError(
                    f"Key {name!r} has the type {batch[name].dtype}. Expected {expected.dtype}, as "
                    "in the example inputs. Convert the data."
                )


@final
@dataclass(frozen=True, kw_only=True)
class _Reader:
    input_names: tuple[str, ...]
    batch_size: int
    limit: int | None
    tokenizer: "Path | str | Tokenizer | None"
    model: Path | None
    decoder_start: int | None

    def batches(self, source: Any) -> Iterator[_Placed]:  # noqa: ANN401 - as in read_data
        """Return checked batches of any source."""
        if isinstance(source, str | Path):
            return self._of_file(Path(source))
        if isinstance(source, Mapping):
            return self._of_arrays(source)
        if isinstance(source, Tensor | ndarray):
            return self._of_arrays({self.input_names[0]: source})
        if _is_map_style(source):
            source = torch.utils.data.DataLoader(source, batch_size=self.batch_size)
        if isinstance(source, Iterable):
            return self._of_items(source)
        raise DataError(
            f"Data of type {type(source).__name__!r} cannot be read. Expected a path of .npz or "
            ".jsonl, arrays, texts, or an iterable of batches. Wrap it in one of them."
        )

    def _of_file(self, path: Path) -> Iterator[_Placed]:
        if is_table(path) and path.exists():
            return self._of_table(path)
        if path.is_dir():
            return self._of_images(path)
        readers = {".npz": self._of_npz, ".jsonl": self._of_jsonl}
        if path.suffix not in readers:
            raise DataError(
                f"Data file {str(path)!r} ends with {path.suffix!r}. Expected .npz, .jsonl or a "
                "folder of images, .parquet or a saved dataset. Convert it to one of them."
            )
        if not path.is_file():
            raise DataError(
                f"Data file {str(path)!r} does not exist. Expected a .npz or .jsonl file. "
                "Check the path."
            )
        return readers[path.suffix](path)

    def _of_images(self, folder: Path) -> Iterator[_Placed]:
        return image_batches(
            folder,
            model=self.model,
            input_name=self.input_names[0],
            batch_size=self.batch_size,
            limit=self.limit,
        )

    def _of_table(self, path: Path) -> Iterator[_Placed]:
        records = table_records(path, input_names=self.input_names, limit=self.limit)
        column = next((name for name, value in records[0].items() if is_opened(value)), None)
        if column is None:
            return self._of_records(records)
        pixels = prepared_images(
            [record.pop(column) for record in records], model=self.model, origin=path
        )
        name = self.input_names[0]
        named = [{**record, name: image} for record, image in zip(records, pixels, strict=True)]
        return self._of_records(named)

    def _of_npz(self, path: Path) -> Iterator[_Placed]:
        try:
            with np.load(path, allow_pickle=False) as archive:
                arrays = dict(archive)
        except _UNREADABLE as error:
            raise DataError(
                f"Data file {str(path)!r} cannot be read: {error}. Expected an .npz of plain "
                "arrays of numbers, without pickles. Save it with numpy.savez."
            ) from error
        return self._of_arrays(arrays)

    def _of_arrays(self, arrays: Mapping[str, ndarray | Tensor]) -> Iterator[_Placed]:
        tensors = {name: as_tensor(_as_array(array), name=name) for name, array in arrays.items()}
        named = self._named(tensors)
        samples = _samples_of(named, names=self.input_names)
        stop = samples if self.limit is None else min(samples, self.limit)
        for start in range(0, stop, self.batch_size):
            end = min(start + self.batch_size, stop)
            # A copy: a file must not hold the whole array behind each slice.
            yield {name: t[start:end].clone() for name, t in named.items()}, range(start, end)

    def _of_jsonl(self, path: Path) -> Iterator[_Placed]:
        records: list[Mapping[str, Any]] = []
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    records.append(_parsed(line, where=f"{str(path)!r} line {number}"))
                if self.limit is not None and len(records) == self.limit:
                    break
        return self._of_records(records)

    def _of_records(self, records: Sequence[Mapping[str, Any]]) -> Iterator[_Placed]:
        if not records:
            raise DataError(
                "The data has no sample. Expected at least one. Check the source: a generator "
                "can be read only once."
            )
        samples = self._tokenised(records) if TEXT in records[0] else _as_samples(records)
        if IDS in samples[0] and TYPES in self.input_names and TYPES not in samples[0]:
            samples = [{**sample, TYPES: np.zeros_like(sample[IDS])} for sample in samples]
        for batch, places in in_batches(samples, batch_size=self.batch_size):
            yield self._named(batch), places

    def _tokenised(self, records: Sequence[Mapping[str, Any]]) -> list[Sample]:
        if self.tokenizer is None:
            raise DataError(
                "The data holds text, but the model came without a tokenizer. Expected a "
                "tokenizer.json. Pass it as `tokenizer`, or give token ids."
            )
        given = self.tokenizer
        tokenizer = load_tokenizer(given) if isinstance(given, str | Path) else given
        return tokenised(
            records,
            tokenizer=tokenizer,
            input_names=self.input_names,
            decoder_start=self.decoder_start,
        )

    def _of_items(self, items: Iterable[Any]) -> Iterator[_Placed]:
        """Read batches, or samples of text, from an iterable."""
        iterator = iter(items)
        first = next(iterator, None)
        if first is None:
            return
        rest = chain([first], iterator)
        if isinstance(first, str) or (isinstance(first, Mapping) and TEXT in first):
            records = [
                item if isinstance(item, Mapping) else {TEXT: item}
                for item in islice(rest, self.limit)
            ]
            yield from self._of_records(records)
            return
        yield from self._of_batches(rest)

    def _of_batches(self, items: Iterable[Any]) -> Iterator[_Placed]:
        start = 0
        for item in items:
            given = self._by_name(item)
            tensors = {
                name: as_tensor(_as_array(value), name=name) for name, value in given.items()
            }
            named = self._named(tensors)
            count = _samples_of(named, names=self.input_names)
            if self.limit is not None:
                count = min(count, self.limit - start)
            if count:
                yield {name: t[:count] for name, t in named.items()}, range(start, start + count)
            start += count
            if start == self.limit:
                return

    def _by_name(self, item: Any) -> Mapping[str, Any]:  # noqa: ANN401 - as in read_data
        """Name the members of a tuple: first the inputs in order, then one label."""
        if isinstance(item, Mapping):
            return item
        members = item if isinstance(item, tuple | list) else (item,)
        names = (*self.input_names, LABELS[0])
        if len(members) > len(names):
            raise DataError(
                f"A batch has {len(members)} members. Expected {len(self.input_names)} inputs "
                f"{list(self.input_names)} and at most one label. Pass dicts with names."
            )
        return dict(zip(names, members, strict=False))

    def _named(self, batch: Batch) -> Batch:
        """Require the model's inputs; a model of one input takes the only key that is no label."""
        others = [name for name in batch if name not in LABELS and name != MASK]
        if len(self.input_names) == 1 and self.input_names[0] not in batch and len(others) == 1:
            wanted = {others[0]: self.input_names[0]}
            batch = {wanted.get(name, name): tensor for name, tensor in batch.items()}
        for name in self.input_names:
            _require(name, batch)
        return batch


def _require(name: str, batch: Batch) -> None:
    if name not in batch:
        raise DataError(
            f"The data has the keys {sorted(batch)}, but not {name!r}, which the model takes. "
            "Expected every input by its name. Rename or add it."
        )


def _samples_of(batch: Batch, *, names: Sequence[str]) -> int:
    """Return the common first dimension."""
    for name, tensor in batch.items():
        if tensor.ndim == 0 or len(tensor) != len(batch[names[0]]):
            raise DataError(
                f"Key {name!r} has the shape {tuple(tensor.shape)}, {names[0]!r} has "
                f"{tuple(batch[names[0]].shape)}. Expected samples in the first dimension of "
                "both. Give as many labels as samples, and batches instead of single samples."
            )
    return len(batch[names[0]])


def _parsed(line: bytes, *, where: str) -> Mapping[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:  # not UTF-8, no JSON, or thousands of levels
        raise DataError(
            f"Data file {where} is no JSON: {error}. Expected one object per line. Mend the line."
        ) from error
    if not isinstance(record, dict):
        raise DataError(
            f"Data file {where} holds a {type(record).__name__}. Expected an object such as "
            '{"text": "..."} or {"input_ids": [1, 2]}. Mend the line.'
        )
    return record


def _as_samples(records: Sequence[Mapping[str, Any]]) -> list[Sample]:
    return [
        {
            name: np.asarray(_as_array(value, what=f"{name!r} of sample {place}"))
            for name, value in record.items()
        }
        for place, record in enumerate(records)
    ]


def _as_array(value: Any, *, what: str = "of a batch") -> ndarray | Tensor:  # noqa: ANN401 - as in read_data
    if isinstance(value, Tensor | ndarray):
        return value
    try:
        return np.asarray(value)
    except ValueError as error:
        raise DataError(
            f"Key {what} is ragged: {error}. Expected a rectangular array of numbers. Pad it."
        ) from error


def _is_map_style(source: object) -> bool:
    return isinstance(source, torch.utils.data.Dataset) and not isinstance(
        source, torch.utils.data.IterableDataset
    )
