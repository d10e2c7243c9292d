"""Masked language models: what counts is what was hidden."""

import math

import pytest
import torch

from mpsearch.errors import DataError
from mpsearch.tasks import TASKS

VOCABULARY = 6
TOKENS = torch.tensor([[0, 1, 2, 3], [4, 5, 0, 1]])
HIDDEN = torch.tensor([[True, False, True, False], [False, True, False, False]])
LABELS = torch.where(HIDDEN, TOKENS, -100)
BATCH = {"input_ids": TOKENS, "attention_mask": torch.ones(2, 4), "labels": LABELS}


def test_a_model_that_knows_nothing_is_as_surprised_as_its_vocabulary_is_large() -> None:
    found = TASKS["masked_lm"].quality([torch.zeros(2, 4, VOCABULARY)], [BATCH])
    assert found["masked_perplexity"] == pytest.approx(VOCABULARY)


def test_accuracy_counts_hidden_tokens_alone() -> None:
    """Of three hidden tokens two are right; what is predicted elsewhere does not matter."""
    right = torch.nn.functional.one_hot(TOKENS, VOCABULARY).float()
    logits = torch.where(HIDDEN[:, :, None], right, 9 * right.flip(-1))
    logits[0, 2] = 0.0
    logits[0, 2, 5] = 1.0
    task = TASKS["masked_lm"]
    assert task.quality([logits], [BATCH])["masked_accuracy"] == pytest.approx(2 / 3)
    samples = task.quality_samples([logits], [BATCH])["masked_accuracy"]
    assert float(samples.mean()) == pytest.approx(2 / 3)


def test_the_labelled_loss_is_the_cross_entropy_at_hidden_tokens() -> None:
    logits = torch.randn(2, 4, VOCABULARY, generator=torch.Generator().manual_seed(0))
    logits.requires_grad_()
    found = TASKS["masked_lm"].labelled_loss(logits, BATCH)
    assert found is not None
    for row in range(2):
        log = logits[row].double().log_softmax(dim=1)
        places = HIDDEN[row].nonzero().flatten().tolist()
        wanted = -sum(float(log[at, TOKENS[row, at]]) for at in places) / len(places)
        assert float(found[row]) == pytest.approx(wanted)
    (slope,) = torch.autograd.grad(found.sum(), logits)
    assert bool((slope[HIDDEN].abs().sum(dim=1) > 0).all())
    assert not slope[~HIDDEN].any()


def test_where_nothing_was_hidden_there_is_no_quality() -> None:
    batch = {**BATCH, "labels": torch.full_like(LABELS, -100)}
    logits = torch.zeros(2, 4, VOCABULARY)
    assert TASKS["masked_lm"].quality([logits], [batch]) == {}
    assert TASKS["masked_lm"].quality_samples([logits], [batch]) == {}
    unlabelled = {name: value for name, value in BATCH.items() if name != "labels"}
    assert TASKS["masked_lm"].quality([logits], [unlabelled]) == {}


@pytest.mark.parametrize("labels", [LABELS[:, :2], LABELS + 90, LABELS.float()])
def test_labels_that_do_not_fit_are_refused(labels: torch.Tensor) -> None:
    with pytest.raises(DataError, match="labels have the shape"):
        TASKS["masked_lm"].quality([torch.zeros(2, 4, VOCABULARY)], [{**BATCH, "labels": labels}])


def test_surprise_is_that_of_the_likelihood() -> None:
    logits = torch.zeros(2, 4, VOCABULARY)
    logits[HIDDEN] = torch.nn.functional.one_hot(TOKENS[HIDDEN], VOCABULARY) * 2.0
    found = TASKS["masked_lm"].quality([logits], [BATCH])["masked_perplexity"]
    share = math.exp(2) / (math.exp(2) + VOCABULARY - 1)
    assert found == pytest.approx(1 / share)
