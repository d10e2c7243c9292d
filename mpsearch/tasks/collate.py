"""Samples to batches: equal shapes are stacked, token sequences are padded within a bucket."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, TypeAlias

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from mpsearch.errors import DataError
from mpsearch.tasks.dataset import Batch

Sample: TypeAlias = Mapping[str, ndarray]

IDS: Final = "input_ids"
MASK: Final = "attention_mask"
TYPES: Final = "token_type_ids"
# The answer of an encoder-decoder, which has a length of its own.
DECODER_IDS: Final = "decoder_input_ids"
DECODER_MASK: Final = "decoder_attention_mask"
LABELS: Final = ("label", "labels", "target", "targets", "y")
# Labels at these positions are ignored by torch's losses.
IGNORED: Final = -100


def in_batches(
    samples: Sequence[Sample], *, batch_size: int
) -> Iterator[tuple[Batch, tuple[int, ...]]]:
    """Yield batches with the places of their samples; sequences of tokens are bucketed.

    Samples with `input_ids` are sorted by length, so that a batch needs little padding, cut
    into batches, and the batches ordered by their first sample: the same on every run.

    Raises:
        DataError: Samples differ in their keys or shapes.
    """
    check_same_keys(samples)
    places = list(range(len(samples)))
    if IDS in samples[0]:
        places.sort(key=lambda place: (len(samples[place][IDS]), place))
    cuts = [sorted(places[i : i + batch_size]) for i in range(0, len(places), batch_size)]
    for cut in sorted(cuts):
        yield _stacked([samples[place] for place in cut], places=cut), tuple(cut)


def check_same_keys(samples: Sequence[Sample]) -> None:
    """Refuse samples that do not all have the keys of the first.

    Raises:
        DataError: One has other keys.
    """
    for place, sample in enumerate(samples):
        if sample.keys() != samples[0].keys():
            raise DataError(
                f"Sample {place} has the keys {sorted(sample)}, the first has "
                f"{sorted(samples[0])}. Expected the same keys in every sample. Fill them in."
            )


def as_tensor(values: ndarray | Tensor, *, name: str) -> Tensor:
    """Return numbers as models take them: float32, int64, uint8 or bool.

    Raises:
        DataError: They are no numbers, or hold NaN or infinity.
    """
    if isinstance(values, ndarray) and values.dtype.kind not in "fiub":
        raise DataError(
            f"Key {name!r} has the type {values.dtype}. Expected numbers in a plain array. "
            "Store one rectangular array of numbers per key."
        )
    tensor = (
        values.detach().cpu()
        if isinstance(values, Tensor)
        else torch.from_numpy(values.astype(values.dtype.newbyteorder("="), copy=True))
    )
    if tensor.is_complex():
        raise DataError(f"Key {name!r} is complex. Expected real numbers. Split it in two.")
    if not tensor.is_floating_point():
        return tensor if tensor.dtype in (torch.uint8, torch.bool) else tensor.long()
    tensor = tensor.float()
    broken = ~torch.isfinite(tensor)
    if bool(broken.any()):
        raise DataError(
            f"Key {name!r} holds {int(broken.sum())} numbers of {tensor.numel()} that are NaN or "
            "infinite. Expected finite numbers. Remove or repair these samples."
        )
    return tensor


def _stacked(samples: Sequence[Sample], *, places: Sequence[int]) -> Batch:
    """Stack each key; keys as long as `input_ids`, or as the answer's tokens, are padded with it.

    The task needs to know the padding even where the model takes no mask.
    """
    batch: dict[str, Tensor] = {}
    kinds = [kind for kind in ((IDS, MASK), (DECODER_IDS, DECODER_MASK)) if kind[0] in samples[0]]
    lengths = {ids: [len(sample[ids]) for sample in samples] for ids, _ in kinds}
    for name in samples[0]:
        arrays = [sample[name] for sample in samples]
        found = [np.shape(array) for array in arrays]
        own = [known for known in lengths.values() if found == [(n,) for n in known]]
        if own:
            filling = IGNORED if name in LABELS else 0
            arrays = [_padded(array, to=max(own[0]), filling=filling) for array in arrays]
        _check_same_shape(arrays, name=name, places=places)
        batch[name] = as_tensor(np.stack(arrays), name=name)
    for ids, mask in kinds:
        if mask not in batch:
            reach = torch.tensor(lengths[ids])[:, None]
            batch[mask] = (torch.arange(max(lengths[ids]))[None, :] < reach).long()
    return batch


def _check_same_shape(arrays: Sequence[ndarray], *, name: str, places: Sequence[int]) -> None:
    shapes = [np.shape(array) for array in arrays]
    for place, shape in zip(places, shapes, strict=True):
        if shape != shapes[0]:
            raise DataError(
                f"Key {name!r} is ragged: sample {place} has the shape {shape}, sample "
                f"{places[0]} has {shapes[0]}. Expected one shape. Pad or cut the samples."
            )


def _padded(array: ndarray, *, to: int, filling: int) -> ndarray:
    return np.pad(array, (0, to - len(array)), constant_values=filling)
