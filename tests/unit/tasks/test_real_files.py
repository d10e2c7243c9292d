"""Readers on real files beside the checkout: photographs, and text of a real tokenizer."""

from pathlib import Path

import pytest
import torch

from mpsearch.tasks import read_data
from mpsearch.tasks.text import text_parts

_ZOO = Path(__file__).parents[4] / "shared" / "zoo"
pytestmark = [
    pytest.mark.zoo,
    pytest.mark.skipif(not _ZOO.is_dir(), reason="no real models and data beside the checkout"),
]


def test_photographs_come_in_order_with_their_labels(tmp_path: Path) -> None:
    data = read_data(
        _ZOO / "cifar10" / "calib.npz",
        input_names=("images",),
        batch_size=32,
        folder=tmp_path,
        limit=100,
    )
    assert [len(batch["images"]) for batch in data] == [32, 32, 32, 4]
    first = next(iter(data))
    assert first["images"].shape == (32, 32, 32, 3)
    assert first["images"].dtype is torch.uint8
    assert len(torch.unique(first["labels"])) > 1


def test_sentences_need_little_padding_in_buckets_and_reload_to_the_same_print(
    tmp_path: Path,
) -> None:
    names = ("input_ids", "attention_mask", "token_type_ids")
    sentences = text_parts(calibration=512).calibration
    first, again = (
        read_data(
            sentences,
            input_names=names,
            batch_size=32,
            folder=tmp_path,
            tokenizer=_ZOO / "minilm_l6_v2" / "tokenizer.json",
        )
        for _ in range(2)
    )
    assert first.fingerprint == again.fingerprint
    assert first.samples == 512
    real = sum(int(batch["attention_mask"].sum()) for batch in first)
    places = sum(batch["attention_mask"].numel() for batch in first)
    # In their own order these sentences need over 100 % of padding; in buckets a tenth.
    assert places < 1.12 * real
    fitting, checking = first.split(0.3)
    assert (fitting.samples, checking.samples) == (358, 154)
