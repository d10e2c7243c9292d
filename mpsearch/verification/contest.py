"""A contest: plans are built, timed in the same rounds, and judged on the same unseen data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, final

import numpy as np
import onnx
from torch import Tensor

from mpsearch.core.hardware import Resource
from mpsearch.core.plan import Plan
from mpsearch.core.progress import Progress, tracked
from mpsearch.cost.timing import time_together
from mpsearch.errors import DeploymentError
from mpsearch.tasks import AbstractTask, Dataset
from mpsearch.tracing import TracedModel
from mpsearch.verification.deployment import Deployment, deploy
from mpsearch.verification.quality import Quality, measure_quality

_BUILD: Final = "build plans"
_TIME: Final = "time head to head"
_JUDGE: Final = "judge on validation data"


# The standard error of the medians that is asked for, and the seconds spent on it at most.
_RELATIVE_ERROR: Final = 0.004
_SECONDS_EACH: Final = 2.0
_NS: Final = 1e9
_LATENCY: Final = "latency"


@final
@dataclass(frozen=True, kw_only=True)
class Latency:
    """Median time of one inference, its standard error, and that of timing anything twice.

    `p99_ns` is the 99th percentile of single inferences, disturbed ones included.
    """

    median_ns: float
    stderr_ns: float
    repeatability: float
    p99_ns: float | None = None


@final
@dataclass(frozen=True, kw_only=True)
class Entry:
    """A plan in the contest: built or `broken`, with what was measured of it.

    `latency` is that of the first workload, `each` of all, where there are several.
    """

    plan: Plan
    deployment: Deployment | None = None
    latency: Latency | None = None
    each: Mapping[str, Latency] = field(default_factory=dict)
    quality: Quality | None = None
    broken: str = ""

    @property
    def amount(self) -> dict[str, float]:
        """Return what the plan was measured to spend; what is exact is taken as forecast.

        Of a plan that was built and not timed no latency is told.
        """
        is_timeable = self.deployment is not None and self.deployment.executable is not None
        unknown = ("loss", _LATENCY) if is_timeable and self.latency is None else ("loss",)
        spent = {k: v for k, v in self.plan.forecast.items() if not k.startswith(unknown)}
        if self.deployment is not None and self.deployment.weight_bytes is not None:
            spent[Resource.WEIGHT_BYTES] = float(self.deployment.weight_bytes)
        if self.latency is not None:
            spent[Resource.LATENCY_NS] = self.latency.median_ns
        return spent | {name: latency.median_ns for name, latency in self.each.items()}


@final
@dataclass(frozen=True, kw_only=True)
class Contest:
    """The model, the data that decides, and the full-precision outputs on it."""

    traced: TracedModel
    base: onnx.ModelProto | None
    task: AbstractTask
    data: Dataset
    reference: tuple[Tensor, ...]
    threads: int
    seed: int = 0

    def hold(
        self,
        plans: Sequence[Plan],
        *,
        is_timed: bool = True,
        progress: Progress | None = None,
    ) -> tuple[Entry, ...]:
        """Build all plans, time them against each other where asked, and measure their loss.

        A plan that does not build, or gives other numbers than its simulation, comes back
        as `broken` with the reason; the others go on.
        """
        deployed = [
            self._deployed(plan)
            for plan in tracked(plans, _BUILD, total=len(plans), progress=progress)
        ]
        latencies = self._latencies(deployed, progress=progress) if is_timed else {}
        return tuple(
            self._judged(entry, latencies=latencies.get(place, {}))
            for place, entry in enumerate(
                tracked(deployed, _JUDGE, total=len(deployed), progress=progress)
            )
        )

    def _deployed(self, plan: Plan) -> Entry:
        try:
            built = deploy(
                self.traced, base=self.base, plan=plan, task=self.task, threads=self.threads
            )
        except DeploymentError as error:
            return Entry(plan=plan, broken=str(error))
        return Entry(plan=plan, deployment=built)

    def _latencies(
        self, entries: Sequence[Entry], *, progress: Progress | None
    ) -> Mapping[int, Mapping[str, Latency]]:
        executables = {
            (place, name): executable
            for place, entry in enumerate(entries)
            if entry.deployment is not None and entry.deployment.executable is not None
            for name, executable in (
                entry.deployment.each or {str(Resource.LATENCY_NS): entry.deployment.executable}
            ).items()
        }
        if not executables:
            return {}
        timed = time_together(
            tuple(executables.values()),
            relative_error=_RELATIVE_ERROR,
            time_limit_seconds=_SECONDS_EACH * len(executables),
            generator=np.random.default_rng(self.seed),
            phase=_TIME,
            progress=progress,
        )
        found: dict[int, dict[str, Latency]] = {}
        for index, (place, name) in enumerate(executables):
            found.setdefault(place, {})[name] = Latency(
                median_ns=float(timed.seconds[index]) * _NS,
                stderr_ns=float(timed.stderr[index]) * _NS,
                repeatability=timed.repeatability,
                p99_ns=float(timed.tail[index]) * _NS,
            )
        return found

    def _judged(self, entry: Entry, *, latencies: Mapping[str, Latency]) -> Entry:
        if entry.deployment is None:
            return entry
        quality = measure_quality(
            entry.deployment.forward, task=self.task, data=self.data, reference=self.reference
        )
        return replace(
            entry,
            latency=next(iter(latencies.values()), None),
            each=latencies if len(latencies) > 1 else {},
            quality=quality,
        )
