"""MiniLM-L6 on STS-B (Cer et al., 2017): how its cosines rank pairs of sentences."""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final, TypeAlias

import torch
from scipy.stats import spearmanr
from torch import Tensor

from benchmarks.cost.subjects import Forward, Part, Subject
from benchmarks.zoo.case import Batches
from benchmarks.zoo.minilm import minilm, padded
from benchmarks.zoo.place import ZOO
from mpsearch.tasks import TASKS
from mpsearch.tasks.tokens import load_tokenizer

Pair: TypeAlias = tuple[str, str, float]
TOKENS: Final = 32
_LENGTH: Final = 128
_BATCH: Final = 50
_CALIBRATING: Final = 128  # sentences
_JUDGING: Final = 256  # sentences of dev that a search judges plans by
_SPLITS: Final[dict[Part, str]] = {"validation": "dev", "test": "test"}


def minilm_on_stsb(folder: Path, *, share: int) -> Subject:
    """Return the model, written to `folder`, with each `share`-th pair of dev and test.

    Sentences of like length are together, so that little is padded.
    """
    calibrating = [text for pair in _pairs("calib") for text in pair[:2]][:_CALIBRATING]
    judging = [text for pair in _pairs("dev")[::share] for text in pair[:2]][:_JUDGING]
    return Subject(
        name="MiniLM",
        model=minilm(folder).model,
        task="embedding",
        calibration=_tokens(tuple(sorted(calibrating, key=len))),
        judging=_tokens(tuple(sorted(judging, key=len))),
        parts={part: _pieces(_pairs(split)[::share]) for part, split in _SPLITS.items()},
        score=_spearman,
        shape=(TOKENS,),
    )


@cache
def _pairs(split: str) -> tuple[Pair, ...]:
    """Return the pairs of a split; what test has is left out of the others."""
    rows = json.loads((ZOO / "stsb" / f"{split}.json").read_text(encoding="utf-8"))
    reported = set() if split == "test" else {pair[:2] for pair in _pairs("test")}
    return tuple(
        (first, second, float(value))
        for first, second, value in rows
        if (first, second) not in reported
    )


@cache
def _tokens(sentences: tuple[str, ...]) -> Batches:
    tokenizer = load_tokenizer(ZOO / "minilm_l6_v2" / "tokenizer.json")
    tokenizer.enable_truncation(_LENGTH)
    rows = [torch.tensor(found.ids) for found in tokenizer.encode_batch(list(sentences))]
    return [padded(rows[at : at + _BATCH]) for at in range(0, len(rows), _BATCH)]


def _pieces(pairs: Sequence[Pair]) -> list[Sequence[Pair]]:
    return [pairs[at : at + _BATCH] for at in range(0, len(pairs), _BATCH)]


def _spearman(forward: Forward, pieces: Sequence[Sequence[Pair]]) -> float:
    """Return the rank correlation of cosines with what people said.

    Sentences are embedded in order of their length, so that little is padded.
    """
    pairs = [pair for piece in pieces for pair in piece]
    sentences = sorted({text for pair in pairs for text in pair[:2]}, key=len)
    vectors = dict(zip(sentences, _embedded(forward, tuple(sentences)), strict=True))
    first = torch.stack([vectors[one] for one, _, _ in pairs])
    second = torch.stack([vectors[other] for _, other, _ in pairs])
    cosines = torch.nn.functional.cosine_similarity(first, second).double().numpy()
    return float(spearmanr(cosines, [value for _, _, value in pairs]).statistic)


def _embedded(forward: Forward, sentences: tuple[str, ...]) -> Tensor:
    task = TASKS["embedding"]
    return torch.cat([task.outputs(forward(batch), batch) for batch in _tokens(sentences)])
