"""Predicted against measured latency of plans that the profile has not seen."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, final

import numpy as np
import onnx
from jaxtyping import Float
from numpy import ndarray

from benchmarks.bar import Bar, judged
from benchmarks.cost.plans import held_out_plans
from benchmarks.path import minilm
from benchmarks.path.targets import TARGETS
from mpsearch.core.graph import LayerGraph
from mpsearch.core.hardware import Resource, Workload
from mpsearch.core.plan import ActivationQuantizer, Plan
from mpsearch.core.tables import CostTable
from mpsearch.cost import profile, time_together
from mpsearch.cost.whole_plans import example_inputs
from mpsearch.export import export_plan
from mpsearch.runtimes import RUNTIMES, AbstractExecutable
from mpsearch.search.references import reference_assignments
from mpsearch.tracing import base_onnx

_FORMATS: Final = ("w8a8", "w8", "w4g128", "w4")
_MEAN: Final = "latency error beyond noise, mean"
_WORST: Final = "latency error beyond noise, worst"
_LENGTH: Final = 32
# Ranges do not change what is executed, so any will do.
_ANY_RANGE: Final = ActivationQuantizer(
    scale=0.03, zero_point=128, low=-3.84, high=3.81, method="none", samples=1
)
_SECONDS_PER_PLAN: Final = 0.8
_RELATIVE_ERROR: Final = 0.004


def bars(*, small: bool) -> Iterator[Bar]:
    """Profile MiniLM, then time random and smart plans against its predictions, twice each."""
    traced = minilm.traced()
    base = base_onnx(traced)
    runtime = RUNTIMES["openvino"]
    bases = runtime.bases[:1] if small else runtime.bases
    trials = [
        _Trial.of(base, traced.graph, precision=precision, small=small) for precision in bases
    ]
    # Noise above the target hides any error: nothing was compared, so the bars fail.
    is_quiet = all(TARGETS[_MEAN].is_met(100 * trial.noise) for trial in trials)
    beyond = [float(100 * each) for trial in trials for each in trial.beyond_noise]
    beyond = beyond if is_quiet else []
    extra: dict[str, object] = {trial.table.base: trial.summary() for trial in trials}
    extra["too_noisy"] = not is_quiet
    yield judged(_MEAN, beyond, target=TARGETS[_MEAN], extra=extra)
    yield judged(_WORST, beyond, target=TARGETS[_WORST], statistic="max", extra=extra)


@final
@dataclass(frozen=True, kw_only=True)
class _Trial:
    """Predictions of one cost table beside two timings of each plan, in two builds of it.

    `predicted` is in the state that the machine has now, by the plans of the profile that
    are timed along.
    """

    table: CostTable
    kinds: tuple[str, ...]
    predicted: Float[ndarray, " N"]
    first: Float[ndarray, " N"]
    second: Float[ndarray, " N"]
    drift: float

    @staticmethod
    def of(base: onnx.ModelProto, graph: LayerGraph, *, precision: str, small: bool) -> "_Trial":
        table = _profile(base, graph, precision=precision)
        generator = np.random.default_rng(2024)
        random, smart = (4, 2) if small else (12, 6)
        plans = held_out_plans(table, graph, random=random, smart=smart, generator=generator)
        known = [plan for plan in table.measured if plan.role == "reference"][:: 4 if small else 2]
        builds = [
            _build(base, assignment, table=table)
            for assignment in (
                *(plan.assignment for plan in known),
                *(plan for _ in range(2) for _, plan in plans),
            )
        ]
        timings = time_together(
            builds,
            relative_error=_RELATIVE_ERROR,
            time_limit_seconds=_SECONDS_PER_PLAN * len(builds),
            generator=generator,
        )
        nanoseconds = timings.seconds * 1e9
        before = np.array([plan.amount[Resource.LATENCY_NS] for plan in known])
        drift = float(np.median(nanoseconds[: len(known)] / before))
        first, second = np.split(nanoseconds[len(known) :], 2)
        spent = [table.spend(plan)[Resource.LATENCY_NS] for _, plan in plans]
        return _Trial(
            table=table,
            kinds=tuple(kind for kind, _ in plans),
            predicted=drift * np.array(spent, dtype=np.float64),
            first=first,
            second=second,
            drift=drift,
        )

    @property
    def errors(self) -> Float[ndarray, " N"]:
        """Return predicted against the mean of both timings, relative."""
        return np.asarray(2 * self.predicted / (self.first + self.second) - 1)

    @property
    def noise(self) -> float:
        """Return the standard deviation of the mean of both timings, relative, from A/A."""
        return float(np.sqrt(np.mean((self.first / self.second - 1) ** 2)) / 2)

    @property
    def beyond_noise(self) -> Float[ndarray, " N"]:
        """Return root of (error squared - noise squared), or zero."""
        return np.asarray(np.sqrt(np.maximum(self.errors**2 - self.noise**2, 0)))

    def summary(self) -> dict[str, object]:
        """Return what a reader needs to judge the errors, in percent."""
        absolute = 100 * np.abs(self.errors)
        apart = 100 * np.abs(self.first / self.second - 1)
        calibration = self.table.calibration[Resource.LATENCY_NS]
        kinds = np.array(self.kinds)
        return {
            "plain_error": {
                kind: {
                    "mean": absolute[kinds == kind].mean(),
                    "worst": absolute[kinds == kind].max(),
                }
                for kind in sorted(set(self.kinds))
            },
            "timed_twice": {"mean": apart.mean(), "worst": apart.max()},
            "noise": 100 * self.noise,
            "predicted_error": 100 * calibration.relative_error,
            "repeatability_of_profile": 100 * calibration.repeatability,
            "drift_since_profile": 100 * (self.drift - 1),
            "plans_profiled": len(self.table.measured),
        }


def _profile(base: onnx.ModelProto, graph: LayerGraph, *, precision: str) -> CostTable:
    runtime = RUNTIMES["openvino"]
    formats = (precision, *_FORMATS)
    kinds = {
        layer.signature: {name: runtime.support(layer, name, base=precision) for name in formats}
        for layer in {layer.signature: layer for layer in graph.layers}.values()
    }
    return profile(
        base,
        graph,
        runtime=runtime,
        formats=formats,
        base_precision=precision,
        workload=_workload(base),
        quantizers=dict.fromkeys(graph.names, _ANY_RANGE),
        references=reference_assignments(
            graph,
            base=precision,
            formats=formats,
            support={layer.name: kinds[layer.signature] for layer in graph.layers},
        ),
    )


def _workload(base: onnx.ModelProto) -> Workload:
    return Workload(name="b1_s32", shapes={value.name: (1, _LENGTH) for value in base.graph.input})


def _build(
    base: onnx.ModelProto, assignment: Mapping[str, str], *, table: CostTable
) -> AbstractExecutable:
    plan = Plan(
        assignment=assignment,
        base=table.base,
        settings=table.settings,
        quantizers=dict.fromkeys(table.layers, _ANY_RANGE),
    )
    workload = _workload(base)
    executable = RUNTIMES["openvino"].build(
        export_plan(base, plan), settings=table.settings, workload=workload
    )
    executable.run(example_inputs(base, workload))
    return executable
