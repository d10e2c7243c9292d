"""A masked language model of the zoo's stories, trained here in a minute and saved as a folder."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.zoo.place import ZOO

_HIDDEN: Final = 512  # the token that stands for a hidden one: the tokeniser's are below
_LENGTH, _BATCH, _STEPS = 64, 16, 400
_SHARE: Final = 0.15  # of tokens that are hidden (Devlin et al., 2019)


def trained_reader(folder: Path) -> dict[str, Mapping[str, Tensor]]:
    """Train on the first stories, save to `folder`, and return data of the later ones."""
    transformers: Any = importlib.import_module("transformers")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=_HIDDEN + 1,
        hidden_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=172,
        max_position_embeddings=_LENGTH,
    )
    model = transformers.BertForMaskedLM(config)
    tokens = np.load(ZOO / "stories260k" / "tokens.npz")["tokens"].astype(np.int64)
    rows = torch.from_numpy(tokens[: len(tokens) // _LENGTH * _LENGTH]).reshape(-1, _LENGTH)
    _train_(model, rows[:-160])
    model.eval().save_pretrained(folder)
    parts = {"calibration": rows[-160:-128], "validation": rows[-128:-64], "test": rows[-64:]}
    return {
        name: _with_hidden(part, generator=torch.Generator().manual_seed(at))
        for at, (name, part) in enumerate(parts.items())
    }


def _train_(model: nn.Module, rows: Tensor) -> None:
    generator = torch.Generator().manual_seed(0)
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=2e-3, total_steps=_STEPS)
    model.train()
    for _ in range(_STEPS):
        drawn = torch.randint(len(rows), (_BATCH,), generator=generator)
        batch = _with_hidden(rows[drawn], generator=generator)
        optimiser.zero_grad()
        model(**batch).loss.backward()
        optimiser.step()
        schedule.step()


def _with_hidden(rows: Tensor, *, generator: torch.Generator) -> dict[str, Tensor]:
    hidden = torch.rand(rows.shape, generator=generator) < _SHARE
    return {
        "input_ids": torch.where(hidden, _HIDDEN, rows),
        "attention_mask": torch.ones_like(rows),
        "labels": torch.where(hidden, rows, -100),
    }
