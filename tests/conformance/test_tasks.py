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


class TestCallable(TaskLaws):
    """A user's own function."""

    def task(self) -> AbstractTask:
        return CallableTask(function=lambda raw, _: raw * 2)

    def example(self, generator: torch.Generator) -> tuple[Tensor, Batch]:
        return torch.randn(4, 2, 3, generator=generator), {"x": torch.zeros(4, 1)}


def test_tasks_are_registered_under_their_own_names() -> None:
    assert {name: task.name for name, task in TASKS.items()} == {name: name for name in TASKS}
