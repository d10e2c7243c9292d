"""The quality of a deployed plan against the full-precision model, on data it has not seen."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, final

import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from mpsearch.errors import MeasurementError
from mpsearch.execution import run
from mpsearch.formulation import Z_95
from mpsearch.tasks import AbstractTask, Batch, Dataset
from mpsearch.tracing import TracedModel

_HALF: Final = 0.5


@final
@dataclass(frozen=True, kw_only=True)
class Quality:
    """Squared output error per sample with its standard error, and the task's own measures.

    `fidelity` needs no labels; `labelled` is empty where the data has none. `differences`
    holds full precision - plan per sample (N,) of each measure that is a mean over samples
    and better when higher, the labelled ones first.
    """

    loss: float
    stderr: float
    samples: int
    fidelity: Mapping[str, float] = field(default_factory=dict)
    labelled: Mapping[str, float] = field(default_factory=dict)
    differences: Mapping[str, Float[ndarray, " N"]] = field(default_factory=dict, repr=False)

    @property
    def interval(self) -> tuple[float, float]:
        """Return the 95 % confidence interval of the loss."""
        return self.loss - Z_95 * self.stderr, self.loss + Z_95 * self.stderr


def reference_outputs(
    traced: TracedModel, *, task: AbstractTask, data: Dataset
) -> tuple[Tensor, ...]:
    """Return the full-precision outputs of each batch: what quality is measured against."""
    with torch.no_grad():
        return tuple(task.outputs(run(traced, batch), batch) for batch in data)


def measure_quality(
    forward: Callable[[Batch], Any],
    *,
    task: AbstractTask,
    data: Dataset,
    reference: Sequence[Tensor],
) -> Quality:
    """Run the plan over the data and compare each output with the full-precision one.

    Args:
        forward: The plan as deployed, from a batch to the model's raw output.
        task: What counts as output and as quality.
        data: Batches that the search has not used.
        reference: `reference_outputs` of the same data.

    Raises:
        MeasurementError: An output is not finite.
    """
    batches = list(data)
    with torch.no_grad():
        outputs = [task.outputs(forward(batch), batch) for batch in batches]
        errors = torch.cat(
            [
                task.squared_error(full, output, batch).double()
                for full, output, batch in zip(reference, outputs, batches, strict=True)
            ]
        )
        if not bool(torch.isfinite(errors).all()):
            raise MeasurementError(
                f"The plan's output is not finite for {int((~torch.isfinite(errors)).sum())} of "
                f"{len(errors)} samples. Expected finite numbers. "
                "Forbid the format that overflows with `fixed`."
            )
        return Quality(
            loss=float(errors.mean()),
            stderr=float(errors.std(correction=1) / math.sqrt(len(errors)))
            if len(errors) > 1
            else 0.0,
            samples=len(errors),
            fidelity=task.fidelity(reference, outputs, batches),
            labelled=task.quality(outputs, batches),
            differences=_differences(task, reference, outputs=outputs, batches=batches),
        )


def _differences(
    task: AbstractTask,
    reference: Sequence[Tensor],
    *,
    outputs: Sequence[Tensor],
    batches: Sequence[Batch],
) -> dict[str, Float[ndarray, " N"]]:
    full, plan = (task.quality_samples(each, batches) for each in (reference, outputs))
    lost = {name: full[name] - plan[name] for name in plan}
    kept, whole = (task.fidelity_samples(reference, each, batches) for each in (outputs, reference))
    # A share of itself is 1; a divergence from itself is 0, and better when lower.
    shares = [name for name in kept if float(whole[name].mean()) > _HALF]
    lost |= {name: whole[name] - kept[name] for name in shares}
    return {name: value.double().cpu().numpy() for name, value in lost.items()}
