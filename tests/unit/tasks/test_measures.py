"""The measures of each task against closed forms."""

import math

import numpy as np
import pytest
import torch

from mpsearch.errors import DataError
from mpsearch.tasks import TASKS, CallableTask, guess_task
from mpsearch.tasks.embedding import Embedding
from mpsearch.tasks.task import primary_output


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_embeddings_pool_over_real_tokens_only_and_have_length_one() -> None:
    hidden = torch.tensor([[[3.0, 0.0], [0.0, 4.0], [9.0, 9.0]]])
    batch = {"attention_mask": torch.tensor([[1, 1, 0]])}
    outputs = TASKS["embedding"].outputs(hidden, batch)
    torch.testing.assert_close(outputs, torch.tensor([[0.6, 0.8]]))
    first = Embedding(pooling="first").outputs(hidden, batch)
    torch.testing.assert_close(first, torch.tensor([[1.0, 0.0]]))


def test_a_sample_of_padding_only_gives_zeros() -> None:
    batch = {"attention_mask": torch.zeros(1, 3, dtype=torch.long)}
    assert not TASKS["embedding"].outputs(torch.randn(1, 3, 2), batch).any()


def test_the_squared_error_of_embeddings_is_two_minus_two_cosines() -> None:
    task = TASKS["embedding"]
    raw, other = torch.randn(2, 8, 5, generator=_generator())
    batch = {"x": torch.zeros(8)}
    full, quantised = task.outputs(raw, batch), task.outputs(other, batch)
    cosine = task.fidelity_samples([full], [quantised], [batch])["cosine"]
    torch.testing.assert_close(
        task.squared_error(full, quantised, batch), 2 - 2 * cosine, rtol=1e-5, atol=1e-6
    )


def test_neighbours_kept_equals_sorting_by_hand() -> None:
    full, quantised = torch.randn(2, 40, 4, generator=_generator())
    full, quantised = (torch.nn.functional.normalize(x, dim=1) for x in (full, quantised))
    measured = TASKS["embedding"].fidelity([full], [quantised], [{"x": full}])["top10_agreement"]
    shares = []
    for row in range(40):
        others = [place for place in range(40) if place != row]
        kept = []
        for vectors in (full, quantised):
            cosines = {place: float(vectors[row] @ vectors[place]) for place in others}
            kept.append(set(sorted(others, key=cosines.__getitem__)[-10:]))
        shares.append(len(kept[0] & kept[1]) / 10)
    assert measured == pytest.approx(np.mean(shares))


def test_neighbours_are_the_same_across_blocks_of_the_similarity_matrix(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    full, quantised = torch.randn(2, 30, 4, generator=_generator())
    batch = {"x": full}
    whole = TASKS["embedding"].fidelity([full], [quantised], [batch])
    monkeypatch.setattr("mpsearch.tasks.embedding._ROWS_AT_ONCE", 7)
    assert TASKS["embedding"].fidelity([full], [quantised], [batch]) == whole


def test_one_sample_has_a_cosine_but_no_neighbours() -> None:
    full = torch.randn(1, 4, generator=_generator())
    assert TASKS["embedding"].fidelity([full], [full], [{"x": full}]) == {
        "cosine": pytest.approx(1)
    }


def test_classification_measures_equal_their_definitions() -> None:
    full = torch.tensor([[0.0, 0.0], [2.0, 0.0]])
    other = torch.tensor([[math.log(3), 0.0], [0.0, 1.0]])
    batch = {"x": torch.zeros(2), "labels": torch.tensor([0, 1], dtype=torch.uint8)}
    task = TASKS["classification"]
    samples = task.fidelity_samples([full], [other], [batch])
    assert samples["agreement"].tolist() == [1.0, 0.0]
    # KL of (1/2, 1/2) from (3/4, 1/4).
    assert float(samples["kl"][0]) == pytest.approx(0.5 * math.log(4 / 3))
    assert task.quality([other], [batch]) == {"accuracy": 1.0}
    assert task.quality([other], [{"x": torch.zeros(2)}]) == {}
    assert task.squared_error(full, other, batch).tolist() == pytest.approx([math.log(3) ** 2, 5])


def test_language_models_measure_real_positions_only() -> None:
    task = TASKS["causal_lm"]
    batch = {
        "input_ids": torch.tensor([[0, 1, 1], [1, 0, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]]),
    }
    raw = torch.randn(2, 3, 2, generator=_generator())
    other = raw + 1.0
    other[1, 2] = 1e6
    full, changed = task.outputs(raw, batch), task.outputs(other, batch)
    # One added to both logits at every real position, and the mean over positions.
    assert task.squared_error(full, changed, batch).tolist() == pytest.approx([2.0, 2.0])
    assert task.fidelity([full], [changed], [batch]) == {
        "agreement": 1.0,
        "kl": pytest.approx(0.0, abs=1e-6),
    }


def test_perplexity_is_that_of_the_next_real_token() -> None:
    batch = {
        "input_ids": torch.tensor([[0, 1, 0, 3]]),
        "attention_mask": torch.tensor([[1, 1, 1, 0]]),
    }
    logits = torch.zeros(1, 4, 4)
    logits[0, 0, 1] = math.log(3)  # probability 3/6 for the token 1, which follows
    quality = TASKS["causal_lm"].quality([logits], [batch])
    assert quality["perplexity"] == pytest.approx(math.exp((math.log(2) + math.log(4)) / 2))
    # Both are right: the second by argmax among equals, which is the first, token 0.
    assert quality["next_token_accuracy"] == 1.0


def test_the_output_that_counts_is_found_in_tuples_and_mappings() -> None:
    logits, state = torch.randn(2, 3), torch.randn(2, 4, 5)
    assert primary_output({"last_hidden_state": state, "logits": logits}) is logits
    assert primary_output((torch.arange(3), state)) is state
    nothings: tuple[object, ...] = (3, {}, (torch.arange(2),))
    for nothing in nothings:
        with pytest.raises(DataError, match="without a tensor"):
            primary_output(nothing)


@pytest.mark.parametrize("name", TASKS)
def test_an_output_of_another_shape_is_refused(name: str) -> None:
    batch = {"x": torch.zeros(2, 2), "decoder_input_ids": torch.zeros(2, 3, dtype=torch.long)}
    other = {"dense": (2, 3), "denoiser": (2,)}.get(name, (2, 3, 4, 5))
    with pytest.raises(DataError, match="shape"):
        TASKS[name].outputs(torch.zeros(other), batch)
    with pytest.raises(DataError, match="for 2 samples"):
        TASKS[name].outputs(torch.zeros(3, 3), batch)


def test_a_mask_of_another_length_is_refused() -> None:
    batch = {"attention_mask": torch.ones(2, 5)}
    with pytest.raises(DataError, match="agree"):
        TASKS["causal_lm"].outputs(torch.zeros(2, 4, 3), batch)


def test_a_callable_gets_the_raw_output_and_must_return_a_tensor() -> None:
    batch = {"x": torch.zeros(2)}
    task = CallableTask(function=lambda raw, _: raw["boxes"])
    assert task.outputs({"boxes": torch.ones(2)}, batch).tolist() == [1.0, 1.0]
    with pytest.raises(DataError, match="returned a list"):
        task.outputs({"boxes": [1, 2]}, batch)


@pytest.mark.parametrize(
    ("raw", "batch", "expected"),
    [
        (torch.randn(2, 5, 8), {"input_ids": torch.full((2, 5), 7)}, "causal_lm"),
        (torch.randn(2, 5, 8), {"input_ids": torch.full((2, 5), 30000)}, "embedding"),
        ({"logits": torch.randn(2, 5, 8)}, {"input_ids": torch.full((2, 5), 9)}, "causal_lm"),
        (torch.randn(2, 10), {"images": torch.zeros(2, 3, 4, 4)}, "classification"),
        (torch.eye(2), {"images": torch.zeros(2, 3)}, "embedding"),
        (torch.randn(2, 9), {"input_ids": torch.zeros(2, 3, dtype=torch.long)}, "embedding"),
        (
            torch.randn(2, 9),
            {"input_ids": torch.zeros(2, 3, dtype=torch.long), "label": torch.zeros(2)},
            "classification",
        ),
        ({"logits": torch.eye(2)}, {"x": torch.zeros(2)}, "classification"),
    ],
)
def test_the_task_is_guessed_from_shapes(
    raw: object, batch: dict[str, torch.Tensor], expected: str
) -> None:
    assert guess_task(raw, batch) == expected


def test_an_image_as_output_needs_a_callable() -> None:
    with pytest.raises(DataError, match="callable"):
        guess_task(torch.zeros(2, 3, 4, 4), {"x": torch.zeros(2)})


def test_lists_of_different_lengths_are_refused() -> None:
    with pytest.raises(DataError, match="Got 1 references, 0 outputs"):
        TASKS["classification"].fidelity([torch.zeros(1, 2)], [], [])
