"""MiniLM-L6 as it lies in the zoo, in half precision, with sentence pairs of STS-B."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from benchmarks.zoo.case import Batches, Parts, ZooCase
from benchmarks.zoo.place import ZOO
from mpsearch.tasks.tokens import load_tokenizer
from mpsearch.tracing import load_folder

_NAME: Final = "minilm_l6_v2"
_LENGTH: Final = 128
_BATCH: Final = 64
CALIBRATION_PAIRS: Final = 128


def minilm(folder: Path) -> ZooCase:
    """Return MiniLM-L6, its weights written to `folder` in full precision as a model folder.

    Embeddings stay as they are.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "tokenizer.json"):
        shutil.copyfile(ZOO / _NAME / name, folder / name)
    stored = load_file(ZOO / _NAME / "model_fp16.safetensors")
    weights = {name: _widened(tensor) for name, tensor in stored.items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    loaded = load_folder(folder)
    embeddings = tuple(
        name.removeprefix(loaded.root)
        for name, module in loaded.module.named_modules()
        if isinstance(module, nn.Embedding)
    )
    return ZooCase(
        name=_NAME,
        task="embedding",
        model=loaded,
        parts=_parts,
        test=lambda: _batches(_sentences("test")),
        fixed=embeddings,
    )


def _widened(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def _parts(seed: int) -> Parts:
    """Return pairs of the training part drawn by seed; those not drawn validate."""
    pairs = _pairs("calib")
    order = np.random.default_rng(seed).permutation(len(pairs)).tolist()
    drawn = [pairs[place] for place in order[:CALIBRATION_PAIRS]]
    others = [pairs[place] for place in order[CALIBRATION_PAIRS:]]
    return Parts(calibration=_batches(_flat(drawn)), validation=_batches(_flat(others)))


def _pairs(split: str) -> list[tuple[str, str]]:
    rows = json.loads((ZOO / "stsb" / f"{split}.json").read_text(encoding="utf-8"))
    return [(first, second) for first, second, _ in rows]


def _sentences(split: str) -> list[str]:
    return _flat(_pairs(split))


def _flat(pairs: Sequence[tuple[str, str]]) -> list[str]:
    return [pair[side] for side in (0, 1) for pair in pairs]


def _batches(sentences: Sequence[str]) -> Batches:
    """Return token ids with masks, sentences of like length together."""
    tokenizer = load_tokenizer(ZOO / _NAME / "tokenizer.json")
    tokenizer.enable_truncation(_LENGTH)
    rows = [torch.tensor(found.ids) for found in tokenizer.encode_batch(list(sentences))]
    rows.sort(key=len)
    return [padded(rows[at : at + _BATCH]) for at in range(0, len(rows), _BATCH)]


def padded(rows: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return rows of token ids as one batch, and a mask of what is no padding."""
    pad = nn.utils.rnn.pad_sequence
    masks = [torch.ones(len(row), dtype=torch.int64) for row in rows]
    return {
        "input_ids": pad(list(rows), batch_first=True),
        "attention_mask": pad(masks, batch_first=True),
    }
