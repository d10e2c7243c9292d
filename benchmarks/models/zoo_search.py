"""One model of the zoo traced, searched and verified, in a process of its own.

`python -m benchmarks.models.zoo_search NAME [--small]` prints one JSON object.
"""

import argparse
import json
import math
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import torch

import mpsearch
from benchmarks.zoo.anywhere import case_named
from benchmarks.zoo.case import Batches
from benchmarks.zoo.denoiser import denoiser, noised
from benchmarks.zoo.minilm import minilm
from mpsearch.core.plan import Plan
from mpsearch.execution import quantised_model, run
from mpsearch.tasks import TASKS, AbstractTask, Dataset, read_data
from mpsearch.tracing import TracedModel
from mpsearch.verification.quality import Quality, measure_quality, reference_outputs
from mpsearch.workflow.effort import DEFAULT_EFFORT
from mpsearch.workflow.prepare import traced_source

MEAN_BITS: Final = 4
ONE_FORMAT: Final = "w4"  # the widest that all layers can have within the budget
_SMALL_EFFORT: Final = 0.5
_RELATIVE: Final = 1e-3  # sums of the same numbers in another order
_KILOBYTE: Final = 1024
# Samples to measure on and to choose on; the small form takes the first number of each.
SAMPLES: Final[Mapping[str, tuple[tuple[int, int], tuple[int, int]]]] = {
    "classification": ((64, 128), (128, 512)),
    "embedding": ((32, 48), (64, 128)),
    "causal_lm": ((4, 16), (16, 64)),
    "denoiser": ((16, 32), (48, 128)),
}


@final
@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model with its task, and data to measure on and to choose on."""

    model: Any
    task: str
    calibration: Batches
    validation: Batches


def _images(name: str, folder: Path) -> Subject:  # noqa: ARG001 - one of a table of functions
    return _of_case(case_named(name))


def _sentences(name: str, folder: Path) -> Subject:  # noqa: ARG001 - the same
    return _of_case(minilm(folder / "model"))


def _digits(name: str, folder: Path) -> Subject:  # noqa: ARG001 - the same
    model = denoiser()
    return Subject(
        model=model,
        task="denoiser",
        calibration=noised(model, rows=range(5000, 5256), seed=0),
        validation=noised(model, rows=range(6000, 6256), seed=1),
    )


def _of_case(case: Any) -> Subject:  # noqa: ANN401 - a ZooCase
    parts = case.parts(0)
    return Subject(
        model=case.model,
        task=case.task,
        calibration=parts.calibration,
        validation=parts.validation,
    )


READERS: Final[Mapping[str, Callable[[str, Path], Subject]]] = {
    "cifar10_resnet20": _images,
    "cifar10_resnet32": _images,
    "minilm_l6_v2": _sentences,
    "mnist_ddpm_starter": _digits,
    "stories260k": _images,
}


def searched(name: str, *, small: bool) -> dict[str, Any]:
    """Return what a search of the model found under a budget of mean bits, beside one format.

    The plan, one format for all layers and full precision are each run over the validation
    data here again, apart from the search.
    """
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        started = time.perf_counter()
        subject = READERS[name](name, folder)
        counts = [sizes[0 if small else 1] for sizes in SAMPLES[subject.task]]
        calibration = _first(subject.calibration, counts[0])
        validation = _first(subject.validation, counts[1])
        result = mpsearch.search(
            subject.model,
            calibration,
            validation=validation,
            task=subject.task,
            budgets={"weight_bits": MEAN_BITS},
            runtime="simulation",
            cache=folder / "cache",
            effort=_SMALL_EFFORT if small else DEFAULT_EFFORT,
        )
        seconds = time.perf_counter() - started
        again = _Judge.of(subject, calibration=calibration, validation=validation, folder=folder)
        found = {
            "plan": again.quality(result.plan),
            "one_format": again.quality(again.plan_of(ONE_FORMAT)),
            "full_precision": again.quality(again.plan_of("fp32")),
        }
    layers = result.graph.layers
    judged = result.tried[0].entry.quality
    assert judged is not None
    missed = [each.quantity for each in result.verification if not each.passed]
    over = [e.quantity for e in result.verification if e.limit and e.measured > e.limit]
    if not math.isclose(found["plan"].loss, judged.loss, rel_tol=_RELATIVE):
        over.append("loss, run again")
    return {
        **{kind: _told(each) for kind, each in found.items()},
        "layers": len(layers),
        "parameters": sum(each.parameters for each in layers) + result.graph.other_parameters,
        "mean_bits": MEAN_BITS,
        "samples": counts,
        "missed": missed,
        "broken": over,
        "seconds": seconds,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KILOBYTE,
    }


@final
@dataclass(frozen=True, kw_only=True)
class _Judge:
    """Runs plans over the validation data."""

    traced: TracedModel
    task: AbstractTask
    data: Dataset
    reference: tuple[torch.Tensor, ...]

    @staticmethod
    def of(
        subject: Subject, *, calibration: Batches, validation: Batches, folder: Path
    ) -> "_Judge":
        traced = traced_source(subject.model, example=calibration)
        task = TASKS[subject.task]
        data = read_data(
            validation,
            input_names=traced.input_names,
            batch_size=len(next(iter(validation[0].values()))),
            folder=folder / "again",
        )
        return _Judge(
            traced=traced,
            task=task,
            data=data,
            reference=reference_outputs(traced, task=task, data=data),
        )

    def plan_of(self, name: str) -> Plan:
        return Plan(assignment=dict.fromkeys(self.traced.graph.names, name), runtime="simulation")

    def quality(self, plan: Plan) -> Quality:
        deployed = quantised_model(self.traced, plan)
        return measure_quality(
            lambda batch: run(deployed, batch),
            task=self.task,
            data=self.data,
            reference=self.reference,
        )


def _told(quality: Quality) -> dict[str, Any]:
    return {
        "loss": quality.loss,
        "stderr": quality.stderr,
        "fidelity": dict(quality.fidelity),
        "quality": dict(quality.labelled),
    }


def _first(batches: Batches, count: int) -> list[dict[str, torch.Tensor]]:
    """Return about the first samples, spread over the batches, which may be sorted by length."""
    total = sum(len(next(iter(batch.values()))) for batch in batches)
    found = []
    for batch in batches:
        size = len(next(iter(batch.values())))
        kept = max(1, round(count * size / total))
        found.append({key: value[:kept] for key, value in batch.items()})
    return found


def main(arguments: Sequence[str]) -> int:
    """Print one model's figures as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.models.zoo_search")
    parser.add_argument("name", choices=sorted(READERS))
    parser.add_argument("--small", action="store_true", help="few samples")
    chosen = parser.parse_args(arguments)
    print(json.dumps(searched(chosen.name, small=chosen.small)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
