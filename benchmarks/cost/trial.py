"""One model in one runtime: profiled, then held-out plans timed twice beside their forecasts."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, final

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from benchmarks.cost.cases import Case
from benchmarks.cost.plans import held_out_plans
from mpsearch.core.formats import format_named
from mpsearch.core.hardware import Resource
from mpsearch.core.plan import ActivationQuantizer, Plan
from mpsearch.core.tables import CostTable
from mpsearch.cost import profile, support_of, time_together
from mpsearch.cost.whole_plans import example_inputs
from mpsearch.export import export_plan
from mpsearch.formulation import Z_95
from mpsearch.runtimes import AbstractExecutable
from mpsearch.search.references import reference_assignments

# Ranges do not change what is executed, so any will do.
ANY_RANGE: Final = ActivationQuantizer(
    scale=0.03, zero_point=128, low=-3.84, high=3.81, method="none", samples=1
)
_FORMATS: Final = ("w8a8", "w8", "w4g128", "w4")
_SECONDS_PER_PLAN: Final = 0.8
_RELATIVE_ERROR: Final = 0.004
_GROUP: Final = 9  # held-out plans built at once, each of them twice
_SEED: Final = 2024


@final
@dataclass(frozen=True, kw_only=True)
class Trial:
    """Forecasts of one cost table beside two timings of each plan, in two builds of it.

    `predicted` is for the state that the machine has now, as plans of the profile show that
    are timed along. `tolerance` is what the forecast promises to keep, as a share.
    """

    case: Case
    table: CostTable
    kinds: tuple[str, ...]
    predicted: Float[ndarray, " N"]
    first: Float[ndarray, " N"]
    second: Float[ndarray, " N"]
    profile_seconds: float

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

    @property
    def tolerance(self) -> float:
        """Return the half width of the interval that a plan of this table promises."""
        calibration = self.table.calibration[Resource.LATENCY_NS]
        return Z_95 * float(np.hypot(calibration.relative_error, calibration.repeatability))

    @property
    def covered(self) -> float:
        """Return the share of plans whose time lies in the interval around their forecast."""
        return float(np.mean(np.abs(1 / (1 + self.errors) - 1) <= self.tolerance))

    def summary(self) -> dict[str, object]:
        """Return what a reader needs to judge the errors, in percent."""
        absolute = 100 * np.abs(self.errors)
        kinds = np.array(self.kinds)
        return {
            "plain_error": {
                kind: {
                    "mean": absolute[kinds == kind].mean(),
                    "worst": absolute[kinds == kind].max(),
                }
                for kind in sorted(set(self.kinds))
            },
            "noise": 100 * self.noise,
            "promised": 100 * self.tolerance,
            "covered": self.covered,
            "plans_profiled": len(self.table.measured),
            "profile_seconds": self.profile_seconds,
        }


def run_trial(case: Case, *, random: int, smart: int) -> Trial:
    """Profile a model, then time held-out plans, each in two builds, in groups.

    Every reference plan is timed along, as in a contest, to read off how the machine has drifted.
    """
    start = time.monotonic()
    table = profile_case(case)
    spent = time.monotonic() - start
    generator = np.random.default_rng(_SEED)
    plans = held_out_plans(table, case.graph, random=random, smart=smart, generator=generator)
    known = [plan for plan in table.measured if plan.role == "reference"]
    before = np.array([plan.amount[Resource.LATENCY_NS] for plan in known])
    forecasts = np.array([float(table.spend(plan)[Resource.LATENCY_NS]) for _, plan in plans])
    kept = [_build(case, plan.assignment, table=table) for plan in known]
    predicted, first, second = [], [], []
    for at in range(0, len(plans), _GROUP):
        group = [plan for _, plan in plans[at : at + _GROUP]]
        builds = [*kept, *(_build(case, plan, table=table) for _ in range(2) for plan in group)]
        timings = time_together(
            builds,
            relative_error=_RELATIVE_ERROR,
            time_limit_seconds=_SECONDS_PER_PLAN * len(builds),
            generator=generator,
        )
        seconds = timings.seconds * 1e9
        drift = float(np.median(seconds[: len(kept)] / before))
        once, again = np.split(seconds[len(kept) :], 2)
        predicted.append(drift * forecasts[at : at + _GROUP])
        first.append(once)
        second.append(again)
    return Trial(
        case=case,
        table=table,
        kinds=tuple(kind for kind, _ in plans),
        predicted=np.concatenate(predicted),
        first=np.concatenate(first),
        second=np.concatenate(second),
        profile_seconds=spent,
    )


def profile_case(case: Case) -> CostTable:
    """Return the cost table of a case, over all formats that its runtime has."""
    found = support_of(
        case.graph,
        runtime=case.runtime,
        formats=(case.precision, *_FORMATS),
        base=case.precision,
        cache=None,
    )
    held = {name for row in found.values() for name, kind in row.items() if kind != "none"}
    formats = tuple(name for name in (case.precision, *_FORMATS) if name in held)
    return profile(
        case.base,
        case.graph,
        runtime=case.runtime,
        formats=formats,
        base_precision=case.precision,
        workload=case.workload,
        quantizers=dict.fromkeys(case.graph.names, ANY_RANGE),
        references=reference_assignments(
            case.graph, base=case.precision, formats=formats, support=found
        ),
        support=found,
    )


def _build(case: Case, assignment: Mapping[str, str], *, table: CostTable) -> AbstractExecutable:
    plan = Plan(
        assignment=assignment,
        base=table.base,
        runtime=case.runtime.name,
        settings=table.settings,
        quantizers={
            layer: ANY_RANGE
            for layer, name in assignment.items()
            if format_named(name).activation is not None
        },
    )
    executable = case.runtime.build(
        export_plan(case.base, plan), settings=table.settings, workload=case.workload
    )
    executable.run(example_inputs(case.base, case.workload))
    return executable
