"""Whole models with every weight in one format, by how its range is found."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, final

import torch
from torch import Tensor

from benchmarks.zoo.case import Batches, ZooCase
from benchmarks.zoo.minilm import minilm
from benchmarks.zoo.resnet import cifar_resnet
from mpsearch.core.formats import format_named
from mpsearch.core.plan import Plan
from mpsearch.execution import quantised_model, run
from mpsearch.execution.weight_changes import WeightChanges
from mpsearch.tasks import TASKS
from mpsearch.tracing import LoadedModel, TracedModel, trace_model

KINDS: Final = ("", "-mse", "-asymmetric", "-asymmetric-mse")
_IMAGES: Final = 256
_SENTENCES: Final = 64


@final
@dataclass(frozen=True, kw_only=True)
class Lost:
    """What a format loses: squared output error per sample beside |output|^2, and by the task.

    `weights` are |stored - W|^2 by layer.
    """

    output: float
    quality: Mapping[str, float]
    weights: Mapping[str, float]


def lost(name: str, *, bits: int, small: bool) -> dict[str, Lost]:
    """Return what each kind of range loses, on samples that nothing was calibrated with."""
    with TemporaryDirectory() as folder:
        case = minilm(Path(folder)) if name == "minilm_l6_v2" else cifar_resnet(name)
    batches = first_samples(
        case.parts(0).validation, samples=_IMAGES if "cifar" in name else _SENTENCES
    )
    traced = traced_case(case, batches[0])
    chosen = batches[:1] if small else batches
    task = TASKS[case.task]
    references = [task.outputs(run(traced, batch), batch) for batch in chosen]
    return {
        kind: _lost(case, traced, format_=f"w{bits}{kind}", batches=chosen, references=references)
        for kind in KINDS
    }


def _lost(
    case: ZooCase,
    traced: TracedModel,
    *,
    format_: str,
    batches: Batches,
    references: list[Tensor],
) -> Lost:
    layers = [name for name in traced.graph.names if name not in case.fixed]
    plan = Plan(
        assignment=dict.fromkeys(traced.graph.names, "fp32") | dict.fromkeys(layers, format_),
        runtime="simulation",
    )
    model, task = quantised_model(traced, plan), TASKS[case.task]
    outputs = [task.outputs(run(model, batch), batch) for batch in batches]
    errors = [
        task.squared_error(reference, output, batch)
        for reference, output, batch in zip(references, outputs, batches, strict=True)
    ]
    whole = torch.cat([reference.flatten(1).square().sum(dim=1) for reference in references])
    changes = WeightChanges(
        traced, {format_: format_named(format_)}, quantizers={}, dynamic_group=None
    )
    return Lost(
        output=float(torch.cat(errors).mean() / whole.mean()),
        quality=task.fidelity(references, outputs, batches),
        weights={
            layer: float(changes.change(layer, format_).double().square().sum()) for layer in layers
        },
    )


def traced_case(case: ZooCase, batch: Mapping[str, Tensor]) -> TracedModel:
    """Return the model of a case as a graph; a module with the images of a batch."""
    if isinstance(case.model, LoadedModel):
        return trace_model(case.model.module, case.model.example, root=case.model.root)
    return trace_model(case.model, {"image": batch["image"][:2]})


def first_samples(batches: Batches, *, samples: int) -> Batches:
    """Return the first batches that have so many samples together."""
    found, seen = [], 0
    for batch in batches:
        if seen >= samples:
            break
        found.append(batch)
        seen += len(next(iter(batch.values())))
    return found
