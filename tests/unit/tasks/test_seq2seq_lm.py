"""Answers are judged at their own tokens, whatever the length of what was asked."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from mpsearch.errors import DataError
from mpsearch.sensitivity.divergence import Divergence
from mpsearch.tasks import TASKS, read_data

_TASK = TASKS["seq2seq_lm"]
VOCABULARY = 5
BATCH = {
    "input_ids": torch.ones(2, 9, dtype=torch.long),
    "attention_mask": torch.ones(2, 9, dtype=torch.long),
    "decoder_input_ids": torch.tensor([[0, 3, 1, 2], [0, 4, 0, 0]]),
    "decoder_attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]),
}


def _sure_of_the_next(token: float = 50.0) -> torch.Tensor:
    logits = torch.zeros(2, 4, VOCABULARY)
    following = BATCH["decoder_input_ids"][:, 1:]
    return logits.scatter(2, torch.nn.functional.pad(following, (0, 1))[..., None], token)


def test_an_even_guess_has_the_perplexity_of_the_vocabulary() -> None:
    found = _TASK.quality([torch.zeros(2, 4, VOCABULARY)], [BATCH])
    assert found["perplexity"] == pytest.approx(VOCABULARY)


def test_certainty_of_the_right_answer_has_a_perplexity_of_one() -> None:
    found = _TASK.quality([_sure_of_the_next()], [BATCH])
    assert found == pytest.approx({"perplexity": 1.0, "next_token_accuracy": 1.0})


def test_only_the_answers_own_padding_is_zeroed() -> None:
    outputs = _TASK.outputs(torch.ones(2, 4, VOCABULARY), BATCH)
    assert outputs.sum(dim=2).tolist() == [[5, 5, 5, 5], [5, 5, 0, 0]]


def test_errors_are_means_over_the_answers_tokens() -> None:
    full = _TASK.outputs(torch.zeros(2, 4, VOCABULARY), BATCH)
    other = _TASK.outputs(torch.ones(2, 4, VOCABULARY), BATCH)
    assert _TASK.squared_error(full, other, BATCH).tolist() == [VOCABULARY, VOCABULARY]


def test_divergence_is_a_mean_over_the_answers_tokens() -> None:
    full, other = torch.zeros(2, 4, VOCABULARY), _sure_of_the_next(1.0)
    found = Divergence(_TASK, reference=full, batch=BATCH).samples(other)
    # Of an even guess from one with a logit of 1 among zeros, the same at every position.
    each = math.log(math.e + VOCABULARY - 1) - 1 / VOCABULARY - math.log(VOCABULARY)
    assert found == pytest.approx([each, each])
    assert _TASK.real_positions(BATCH, like=full).tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]


def test_the_labelled_loss_is_the_surprise_at_the_answer() -> None:
    loss = _TASK.labelled_loss(torch.zeros(2, 4, VOCABULARY), BATCH)
    assert loss is not None
    assert loss.tolist() == pytest.approx([math.log(VOCABULARY)] * 2)


def test_data_without_an_answer_is_told() -> None:
    with pytest.raises(DataError, match="the tokens of an answer"):
        _TASK.outputs(torch.zeros(2, 4, 5), {"input_ids": torch.ones(2, 4, dtype=torch.long)})


_NAMES = ("input_ids", "attention_mask", "decoder_input_ids")


def _tokenizer(folder: Path) -> Path:
    words = {"[UNK]": 1, "a": 2, "b": 3, "c": 4}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))  # noqa: S106 - a word, no password
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


def test_texts_and_answers_become_tokens_padded_apart(tmp_path: Path) -> None:
    records = [{"text": "a b c a", "text_target": "b"}, {"text": "a", "text_target": "c a"}]
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(map(json.dumps, records)))
    data = read_data(
        path,
        input_names=_NAMES,
        batch_size=2,
        folder=tmp_path / "data",
        tokenizer=_tokenizer(tmp_path),
        decoder_start=0,
    )
    (batch,) = data
    assert batch["input_ids"].tolist() == [[2, 3, 4, 2], [2, 0, 0, 0]]
    assert batch["decoder_input_ids"].tolist() == [[0, 3, 0], [0, 4, 2]]
    assert batch["decoder_attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1]]


@pytest.mark.parametrize(
    ("record", "start", "message"),
    [
        ({"text": "a"}, 0, "has the answer None"),
        ({"text": "a", "text_target": "b"}, None, "names no decoder_start_token_id"),
    ],
)
def test_answers_that_cannot_be_read_are_told(
    tmp_path: Path, record: dict[str, str], start: int | None, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read_data(
            [record],
            input_names=_NAMES,
            batch_size=2,
            folder=tmp_path,
            tokenizer=_tokenizer(tmp_path),
            decoder_start=start,
        )


def test_token_lists_of_any_length_are_read(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    records = [
        {"input_ids": [5, 6], "decoder_input_ids": [0, 7, 8]},
        {"input_ids": [5], "decoder_input_ids": [0]},
    ]
    path.write_text("\n".join(map(json.dumps, records)))
    (batch,) = read_data(path, input_names=_NAMES, batch_size=2, folder=tmp_path / "data")
    np.testing.assert_array_equal(batch["decoder_attention_mask"], [[1, 1, 1], [1, 0, 0]])
    np.testing.assert_array_equal(batch["attention_mask"], [[1, 1], [1, 0]])
