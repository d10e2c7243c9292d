"""Every registered task, and one given as a callable, obeys the laws of tasks."""

import torch
from torch import Tensor

from mpsearch.tasks import TASKS, AbstractTask, Batch, CallableTask
from mpsearch.testing.task_laws import TaskLaws

_MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]])


class TestEmbedding(TaskLaws):
    """Hidden states of tokens with padding."""

    def task(self) -> AbstractTask:
        return TASKS["embedding"]

    def example(self, generator: torch.Generator) -> tuple[Tensor, Batch]:
        return torch.randn(5, 4, 6, generator=generator), {"attention_mask": _MASK}


class TestClassification(TaskLaws):
    """Logits of images."""

    def task(self) -> AbstractTask:
        return TASKS["classification"]

    def example(self, generator: torch.Generator) -> tuple[Tensor, Batch]:
        return torch.randn(6, 3, generator=generator), {"pixels": torch.zeros(6, 2)}


class TestCausalLm(TaskLaws):
    """Logits of tokens with padding."""

    def task(self) -> AbstractTask:
        return TASKS["causal_lm"]

    def example(self, generator: torch.Generator) -> tuple[Tensor, Batch]:
        ids = torch.arange(20).reshape(5, 4) % 7
        return torch.randn(5, 4, 7, generator=generator), {
            "input_ids": ids,
            "attention_mask": _MASK,
        }


class TestMaskedLm(TaskLaws):
    """Logits of tokens with padding, of which some were hidden."""

    def task(self) -> AbstractTask:
        return TASKS["masked_lm"]

    def example(self, generator: torch.Generator) -> tuple[Tensor, Batch]:
        ids = torch.arange(20).reshape(5, 4) % 7
        return torch.randn(5, 4, 7, generator=generator), {
            "input_ids": ids,
            "attention_mask": _MASK,
            "labels": torch.where(ids % 3 == 0, ids, -100),
        }


class TestSeq2SeqLm(TaskLaws):
    """Logits of an answer's tokens with padding, beside a question of another length."""

    def task(self) -> AbstractTask:
        return TASKS["seq2seq_lm"]

    def example(self, generator: torch.Generator) -> tuple[Tensor, Batch]:
        return torch.randn(5, 4, 7, generator=generator), {
            "input_ids": torch.ones(5, 9, dtype=torch.long),
            "attention_mask": torch.ones(5, 9, dtype=torch.long),
            "decoder_input_ids": torch.arange(20).reshape(5, 4) % 7,
            "decoder_attention_mask": _MASK,
        }


class TestCtc(TaskLaws):
    """Logits of letters at frames, and texts of unlike length."""

    def task(self) -> AbstractTask:
        return TASKS["ctc"]

    def example(self, generator: torch.Generator) -> tuple[Tensor, Batch]:
        texts = torch.tensor([[1, 2], [2, -100], [3, 3], [1, -100], [2, 1]])
        return torch.randn(5, 8, 4, generator=generator), {"x": torch.zeros(5, 3), "labels": texts}


class TestRetrieval(TaskLaws):
    """Embeddings of samples, some of which belong together."""

    def task(self) -> AbstractTask:
        return TASKS["retrieval"]

    def example(self, generator: torch.Generator) -> tuple[Tensor, Batch]:
        return torch.randn(7, 5, generator=generator), {
            "x": torch.zeros(7, 1),
            "labels": torch.tensor([0, 1, 0, 2, 1, 1, 3]),
        }


class TestDense(TaskLaws):
    """Pictures, and the ones that are wanted."""

    def task(self) -> AbstractTask:
        return TASKS["dense"]

    def example(self, generator: torch.Generator) -> tuple[Tensor, Batch]:
        wanted = torch.rand(4, 2, 3, 5, generator=torch.Generator().manual_seed(9))
        return torch.rand(4, 2, 3, 5, generator=generator), {"x": wanted, "labels": wanted}


class TestDenoiser(TaskLaws):
    """Predicted noise, and the noise that was added."""

    def task(self) -> AbstractTask:
        return TASKS["denoiser"]

    def example(self, generator: torch.Generator) -> tuple[Tensor, Batch]:
        noise = torch.randn(4, 1, 4, 4, generator=torch.Generator().manual_seed(9))
        return torch.randn(4, 1, 4, 4, generator=generator), {"x": noise, "labels": noise}


class TestCallable(TaskLaws):
    """A user's own function."""

    def task(self) -> AbstractTask:
        return CallableTask(function=lambda raw, _: raw * 2)

    def example(self, generator: torch.Generator) -> tuple[Tensor, Batch]:
        return torch.randn(4, 2, 3, generator=generator), {"x": torch.zeros(4, 1)}


def test_tasks_are_registered_under_their_own_names() -> None:
    assert {name: task.name for name, task in TASKS.items()} == {name: name for name in TASKS}
