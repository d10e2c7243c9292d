"""Laws of every task: inherit the suite and give a task with an output and its batch."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from mpsearch.tasks.dataset import Batch
from mpsearch.tasks.task import AbstractTask

_EXACT = 1e-12  # double precision
_REORDERED = 1e-9  # single-precision outputs, summed in another order in double precision


class TaskLaws(ABC):
    """What outputs, squared errors and measures must keep true."""

    @abstractmethod
    def task(self) -> AbstractTask:
        """Return the task under test."""

    @abstractmethod
    def example(self, generator: torch.Generator) -> tuple[Tensor, Batch]:
        """Return a raw output of at least four samples and the batch it came from."""

    def test_outputs_keep_samples_and_are_single_precision(self) -> None:
        raw, batch = self._example()
        outputs = self.task().outputs(raw.to(torch.bfloat16), batch)
        assert len(outputs) == len(raw)
        assert outputs.dtype is torch.float32

    def test_the_same_output_has_no_error(self) -> None:
        raw, batch = self._example()
        outputs = self.task().outputs(raw, batch)
        assert (self.task().squared_error(outputs, outputs, batch) == 0).all()

    def test_a_sample_has_the_same_error_alone_and_in_a_batch(self) -> None:
        raw, batch = self._example()
        other = raw + 0.1 * self._example(seed=1)[0]
        together = self._error(raw, other, batch=batch)
        for row in range(len(raw)):
            one = slice(row, row + 1)
            alone = self._error(
                raw[one], other[one], batch={name: tensor[one] for name, tensor in batch.items()}
            )
            # Sums of another length are added in another order.
            torch.testing.assert_close(alone, together[one], rtol=1e-5, atol=1e-9)

    def test_the_error_of_a_small_change_grows_with_its_square(self) -> None:
        raw, batch = self._example()
        change = self._example(seed=1)[0]
        once = self._error(raw, raw + 1e-3 * change, batch=batch)
        twice = self._error(raw, raw + 2e-3 * change, batch=batch)
        # Normalised outputs bend a little; single precision leaves four digits.
        torch.testing.assert_close(twice, 4 * once, rtol=2e-2, atol=1e-9)

    def test_fidelity_is_the_mean_over_samples_and_best_at_no_change(self) -> None:
        raw, batch = self._example()
        task = self.task()
        full = task.outputs(raw, batch)
        other = task.outputs(raw + self._example(seed=1)[0], batch)
        perfect = task.fidelity([full], [full], [batch])
        changed = task.fidelity([full], [other], [batch])
        samples = task.fidelity_samples([full], [other], [batch])
        assert changed.keys() == perfect.keys() == samples.keys()
        for name, value in changed.items():
            assert len(samples[name]) == len(raw)
            assert abs(float(samples[name].double().mean()) - value) <= _EXACT
            assert value >= perfect[name] if name == "kl" else value <= perfect[name] + _EXACT

    def test_a_quality_of_samples_is_their_mean(self) -> None:
        raw, batch = self._example()
        outputs = self.task().outputs(raw, batch)
        whole = self.task().quality([outputs], [batch])
        for name, values in self.task().quality_samples([outputs], [batch]).items():
            assert len(values) == len(raw)
            assert abs(float(values.double().mean()) - whole[name]) <= _REORDERED

    def test_the_cut_into_batches_does_not_change_fidelity(self) -> None:
        raw, batch = self._example()
        task = self.task()
        full, other = task.outputs(raw, batch), task.outputs(raw + self._example(seed=1)[0], batch)
        parts = [slice(0, 1), slice(1, 3), slice(3, None)]
        split = task.fidelity(
            [full[part] for part in parts],
            [other[part] for part in parts],
            [{name: tensor[part] for name, tensor in batch.items()} for part in parts],
        )
        whole = task.fidelity([full], [other], [batch])
        assert split.keys() == whole.keys()
        assert all(abs(split[name] - whole[name]) <= _REORDERED for name in whole)

    def _example(self, *, seed: int = 0) -> tuple[Tensor, Batch]:
        return self.example(torch.Generator().manual_seed(seed))

    def _error(self, raw: Tensor, other: Tensor, *, batch: Batch) -> Tensor:
        task = self.task()
        return task.squared_error(task.outputs(raw, batch), task.outputs(other, batch), batch)
