"""A transformer with the inputs of every linear layer in 8 bits, by how ranges are found."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import torch

from benchmarks.formats.clipping import first_samples, traced_case
from benchmarks.zoo.minilm import minilm
from mpsearch.core.graph import Op
from mpsearch.core.plan import Plan
from mpsearch.execution import observe_ranges, quantised_model, run
from mpsearch.quant.ranges import RANGE_METHODS
from mpsearch.tasks import TASKS, read_data

_SENTENCES: Final = 128
_SMALL_SENTENCES: Final = 16


def range_losses(*, small: bool) -> dict[str, Mapping[str, float]]:
    """Return what each way to find ranges loses on sentences that nothing was calibrated with.

    The squared output error is beside |output|^2.
    """
    samples = _SMALL_SENTENCES if small else _SENTENCES
    with TemporaryDirectory() as folder:
        case = minilm(Path(folder))
        parts, task = case.parts(0), TASKS[case.task]
        batches = first_samples(parts.validation, samples=samples)
        traced = traced_case(case, batches[0])
        data = read_data(
            first_samples(parts.calibration, samples=samples),
            input_names=traced.input_names,
            batch_size=_SMALL_SENTENCES,
            folder=Path(folder),
        )
        quantizers = {
            method: observe_ranges(traced, data, method=method) for method in RANGE_METHODS
        }
    references = [task.outputs(run(traced, batch), batch) for batch in batches]
    whole = torch.cat([reference.flatten(1).square().sum(dim=1) for reference in references])
    found: dict[str, Mapping[str, float]] = {}
    for method, chosen in quantizers.items():
        plan = Plan(
            assignment={
                layer.name: "w8a8" if layer.op is Op.LINEAR else "w8"
                for layer in traced.graph.layers
            },
            runtime="simulation",
            quantizers=chosen,
        )
        model = quantised_model(traced, plan)
        outputs = [task.outputs(run(model, batch), batch) for batch in batches]
        errors = torch.cat(
            [
                task.squared_error(reference, output, batch)
                for reference, output, batch in zip(references, outputs, batches, strict=True)
            ]
        )
        fidelity = task.fidelity(references, outputs, batches)
        found[method] = {"output error": float(errors.mean() / whole.mean()), **fidelity}
    return found
