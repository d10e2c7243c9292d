"""A language model of 260,000 parameters: Llama's layers, stories for children."""

from collections.abc import Sequence
from functools import partial
from typing import Final, final

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from benchmarks.zoo.case import Batches, Parts, ZooCase
from benchmarks.zoo.place import ZOO

_NAME: Final = "stories260k"
_WIDTH, _HIDDEN, _VOCABULARY, _LAYERS = 64, 172, 512, 5
_HEADS, _SHARED_HEADS, _HEAD_WIDTH, _LENGTH = 8, 4, 8, 512
_EPSILON: Final = 1e-5
_BASE: Final = 1e4
_BATCH: Final = 16
CALIBRATION_TOKENS: Final = 20_000
TEST_TOKENS: Final = 40_000


@final
class Stories(nn.Module):
    """Decoder of five layers with rotary positions, SwiGLU and grouped-query attention."""

    def __init__(self) -> None:
        super().__init__()
        self.tok_embeddings = nn.Embedding(_VOCABULARY, _WIDTH)
        self.layers = nn.ModuleList(_Layer() for _ in range(_LAYERS))
        self.norm = nn.RMSNorm(_WIDTH, eps=_EPSILON)
        # Shares the embedding's numbers, but is a layer of its own that stays as it is.
        self.output = nn.Linear(_WIDTH, _VOCABULARY, bias=False)
        frequency = _BASE ** (-torch.arange(0, _HEAD_WIDTH, 2).float() / _HEAD_WIDTH)
        angle = torch.outer(torch.arange(_LENGTH).float(), frequency)
        self.turn = nn.Buffer(torch.stack([angle.cos(), angle.sin()]), persistent=False)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Return logits of shape (texts, tokens, 512)."""
        length = input_ids.shape[1]
        hidden = self.tok_embeddings(input_ids)
        for layer in self.layers:
            hidden = layer(hidden, self.turn[:, :length, None])
        logits: Tensor = self.output(self.norm(hidden))
        return logits


@final
class _Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        shared = _SHARED_HEADS * _HEAD_WIDTH
        self.attention_norm = nn.RMSNorm(_WIDTH, eps=_EPSILON)
        self.wq = nn.Linear(_WIDTH, _WIDTH, bias=False)
        self.wk = nn.Linear(_WIDTH, shared, bias=False)
        self.wv = nn.Linear(_WIDTH, shared, bias=False)
        self.wo = nn.Linear(_WIDTH, _WIDTH, bias=False)
        self.ffn_norm = nn.RMSNorm(_WIDTH, eps=_EPSILON)
        self.w1 = nn.Linear(_WIDTH, _HIDDEN, bias=False)
        self.w2 = nn.Linear(_HIDDEN, _WIDTH, bias=False)
        self.w3 = nn.Linear(_WIDTH, _HIDDEN, bias=False)

    def forward(self, hidden: Tensor, turn: Tensor) -> Tensor:
        texts, length, _ = hidden.shape
        given = self.attention_norm(hidden)
        query = _rotated(self.wq(given).view(texts, length, _HEADS, _HEAD_WIDTH), turn)
        key = _rotated(self.wk(given).view(texts, length, _SHARED_HEADS, _HEAD_WIDTH), turn)
        value = self.wv(given).view(texts, length, _SHARED_HEADS, _HEAD_WIDTH)
        repeats = _HEADS // _SHARED_HEADS
        attended = nn.functional.scaled_dot_product_attention(
            query.transpose(1, 2),
            key.transpose(1, 2).repeat_interleave(repeats, 1),
            value.transpose(1, 2).repeat_interleave(repeats, 1),
            is_causal=True,
        )
        hidden = hidden + self.wo(attended.transpose(1, 2).reshape(texts, length, _WIDTH))
        given = self.ffn_norm(hidden)
        result: Tensor = hidden + self.w2(nn.functional.silu(self.w1(given)) * self.w3(given))
        return result


def _rotated(heads: Tensor, turn: Tensor) -> Tensor:
    """Turn pairs of neighbouring features by an angle that grows with the position."""
    cos, sin = turn
    even, odd = heads[..., 0::2], heads[..., 1::2]
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1).flatten(-2)


def stories() -> ZooCase:
    """Return stories260k; the embedding and the output that shares it stay as they are."""
    weights = load_file(ZOO / _NAME / "model.safetensors")
    module = Stories().eval()
    module.load_state_dict({"output.weight": weights["tok_embeddings.weight"]} | weights)
    return ZooCase(
        name=_NAME,
        task="causal_lm",
        model=module,
        parts=_parts,
        test=_test,
        fixed=("tok_embeddings", "output"),
    )


def _parts(seed: int) -> Parts:
    """Return the documents that the referee calibrates with by this seed; the others validate."""
    pool, _ = _documents()
    order = np.random.default_rng(seed).permutation(len(pool))
    shuffled = [pool[place] for place in order]
    count = _enough(shuffled, tokens=CALIBRATION_TOKENS)
    return Parts(calibration=_batches(shuffled[:count]), validation=_batches(shuffled[count:]))


def _test() -> Batches:
    _, pool = _documents()
    return _batches(pool[: _enough(pool, tokens=TEST_TOKENS)])


def _documents() -> tuple[list[Tensor], list[Tensor]]:
    """Return the first half of the documents, and the half that is test data."""
    stored = np.load(ZOO / _NAME / "tokens.npz")
    tokens = torch.from_numpy(stored["tokens"].astype(np.int64))
    every = [tokens[a:b] for a, b in zip(stored["offsets"], stored["offsets"][1:], strict=False)]
    real = [document for document in every if len(document) > 1]
    return real[: len(real) // 2], real[len(real) // 2 :]


def _enough(documents: Sequence[Tensor], *, tokens: int) -> int:
    """Return how many documents it takes to predict so many tokens, the first ones."""
    predicted = np.cumsum([len(document) - 1 for document in documents])
    return min(int(np.searchsorted(predicted, tokens)) + 1, len(documents))


def _batches(documents: Sequence[Tensor]) -> Batches:
    """Return documents of like length together; the mask marks positions that predict."""
    ordered = sorted(documents, key=len)
    pad = partial(nn.utils.rnn.pad_sequence, batch_first=True)
    return [
        {
            "input_ids": pad(rows),
            "attention_mask": pad([torch.ones(len(row), dtype=torch.int64) for row in rows]),
        }
        for rows in (ordered[at : at + _BATCH] for at in range(0, len(ordered), _BATCH))
    ]
