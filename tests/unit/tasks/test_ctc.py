"""Letters of speech: the best path, its edits, and the surprise over all alignments."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mpsearch.errors import DataError
from mpsearch.tasks import TASKS
from mpsearch.tasks.ctc import edits

_LETTERS = st.lists(st.integers(0, 3), max_size=6)


def _by_definition(found: list[int], wanted: list[int]) -> int:
    if not found or not wanted:
        return len(found) + len(wanted)
    return min(
        _by_definition(found[1:], wanted) + 1,
        _by_definition(found, wanted[1:]) + 1,
        _by_definition(found[1:], wanted[1:]) + (found[0] != wanted[0]),
    )


@given(_LETTERS, _LETTERS)
def test_edits_are_those_of_the_definition(found: list[int], wanted: list[int]) -> None:
    assert edits(np.array(found), np.array(wanted)) == _by_definition(found, wanted)


def test_every_frame_counts_however_long_the_sound() -> None:
    batch = {"input_values": torch.zeros(2, 400), "attention_mask": torch.ones(2, 400)}
    frames = TASKS["ctc"].real_positions(batch, like=torch.zeros(2, 7, 4))
    assert frames.tolist() == [[1] * 7] * 2


def _sure(*paths: list[int]) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor(paths), num_classes=4).float() * 30


def test_repeats_merge_and_blanks_part_them() -> None:
    labels = torch.tensor([[1, 1, 2], [3, -100, -100]])
    found = TASKS["ctc"].quality([_sure([1, 0, 1, 2, 2], [0, 3, 3, 3, 0])], [{"labels": labels}])
    assert found == {"letter_accuracy": 1.0}


def test_the_mean_over_samples_is_that_over_letters() -> None:
    """Of four letters three are right: one of a text of one is wrong, none of the three."""
    labels = torch.tensor([[1, 2, 3], [2, -100, -100]])
    found = TASKS["ctc"].quality([_sure([1, 2, 3], [1, 1, 1])], [{"labels": labels}])
    assert found == {"letter_accuracy": pytest.approx(3 / 4)}


def test_the_surprise_is_that_over_all_alignments() -> None:
    logits = torch.randn(1, 3, 3, generator=torch.Generator().manual_seed(0))
    chance = logits[0].double().softmax(dim=1)
    total = 0.0
    for path in itertools.product(range(3), repeat=3):
        spelled = [letter for letter, _ in itertools.groupby(path) if letter]
        if spelled == [1, 2]:
            total += math.prod(float(chance[frame, letter]) for frame, letter in enumerate(path))
    loss = TASKS["ctc"].labelled_loss(logits, {"labels": torch.tensor([[1, 2]])})
    assert loss is not None
    assert float(loss[0]) == pytest.approx(-math.log(total) / 3)


def test_labels_that_are_no_letters_are_told() -> None:
    with pytest.raises(DataError, match="one row of letter numbers"):
        TASKS["ctc"].quality([_sure([1, 2, 3])], [{"labels": torch.tensor([[9]])}])


def test_without_labels_there_is_no_quality() -> None:
    assert TASKS["ctc"].quality([_sure([1, 2])], [{"x": torch.zeros(1)}]) == {}
