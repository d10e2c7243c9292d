"""A guess at the task from one output and its batch."""

from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor

from mpsearch.errors import DataError
from mpsearch.tasks.collate import IDS
from mpsearch.tasks.dataset import Batch
from mpsearch.tasks.task import labels_of, primary_output

_TOKENS, _VECTORS = 3, 2  # dimensions
# How far from 1 the length of an embedding of unit length may be, in float32 or bfloat16.
_LENGTH_TOLERANCE: Final = 1e-2


def guess_task(raw: Any, batch: Batch) -> str:  # noqa: ANN401 - models return tensors, tuples, dicts
    """Return the name of the task that an output of this shape is likely for.

    (samples, tokens, F) with F beyond every token id are logits of a vocabulary, else hidden
    states. (samples, F) are logits, unless all have length 1, or text came without labels.

    Raises:
        DataError: The shape is of another kind.
    """
    tensor = primary_output(raw)
    if tensor.ndim == _TOKENS and IDS in batch:
        vocabulary = _is_named_logits(raw) or tensor.shape[2] > int(batch[IDS].max())
        return "causal_lm" if vocabulary else "embedding"
    if tensor.ndim == _VECTORS:
        return "embedding" if _is_embedding(raw, tensor, batch=batch) else "classification"
    raise DataError(
        f"The task cannot be guessed from an output of the shape {tuple(tensor.shape)}. Expected "
        "(samples, classes), (samples, features) or (samples, tokens, features) of text. Pass "
        "`task`: a name, or a callable from (raw output, batch) to one row per sample."
    )


def _is_named_logits(raw: Any) -> bool:  # noqa: ANN401 - as in guess_task
    return isinstance(raw, Mapping) and isinstance(raw.get("logits"), Tensor)


def _is_embedding(raw: Any, tensor: Tensor, *, batch: Batch) -> bool:  # noqa: ANN401 - as in guess_task
    if _is_named_logits(raw):
        return False
    lengths = tensor.float().norm(dim=1)
    unit = bool(torch.isclose(lengths, torch.ones_like(lengths), atol=_LENGTH_TOLERANCE).all())
    return unit or (IDS in batch and labels_of(batch) is None)
