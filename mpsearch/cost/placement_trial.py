"""Try quantisers on residual additions before anything is profiled: uniform plans, head to head.

Under each base three plans are built at each workload: nothing quantised, every layer in its
static format, and the same with residual additions. Additions that are quantised lose more than
those that are not, so they pay only where that makes the plan faster than every other one.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, final

import numpy as np
import onnx

from mpsearch.core.cache import Cache, content_hash
from mpsearch.core.formats import format_named
from mpsearch.core.graph import LayerGraph
from mpsearch.core.hardware import Support, Workload
from mpsearch.core.placement import (
    LAYER_INPUTS,
    RESIDUAL_ADDS,
    addend_quantizers,
    is_addend,
    quantised_additions,
)
from mpsearch.core.plan import ActivationQuantizer, Plan
from mpsearch.core.progress import Progress
from mpsearch.cost.timing import CoreState, time_together
from mpsearch.cost.whole_plans import example_inputs
from mpsearch.errors import DeploymentError
from mpsearch.export import export_plan
from mpsearch.runtimes import AbstractExecutable, AbstractRuntime

PLAIN: Final = "plain"  # nothing quantised

_KIND: Final = "placement_trials"
_REVISION: Final = 1  # raise it when the same trial would come out differently
_PHASE: Final = "try placements"
_RELATIVE_ERROR: Final = 0.005
_SECONDS_PER_PLAN: Final = 0.6
_MARGIN: Final = 2.0  # standard errors of a difference, 95 % of a normal distribution


@final
@dataclass(frozen=True, kw_only=True)
class PlacementTrial:
    """What uniform plans took under one base.

    `additions` is how many were quantised, `seconds` and `stderr` are by workload, then by
    `PLAIN`, `LAYER_INPUTS` and `RESIDUAL_ADDS`; a plan that did not build is absent, and
    `broken` says why that with additions did not. `fastest` is the least time of a plan without
    quantised additions under any base, `gains` says at which workloads additions beat it.
    """

    base: str
    additions: int
    seconds: Mapping[str, Mapping[str, float]]
    stderr: Mapping[str, Mapping[str, float]]
    broken: str = ""
    fastest: Mapping[str, float] = field(default_factory=dict)
    gains: tuple[str, ...] = ()


@final
@dataclass(frozen=True, kw_only=True)
class PlacementTrials:
    """Builds and times the uniform plans of a model on a device."""

    base: onnx.ModelProto
    graph: LayerGraph
    runtime: AbstractRuntime
    formats: Sequence[str]
    quantizers: Mapping[str, ActivationQuantizer]
    additions: Mapping[str, str]
    threads: int = 1
    cache: Cache | None = None
    progress: Progress | None = None
    seed: int = 0
    state: CoreState = field(default_factory=CoreState)

    def run(
        self,
        supports: Mapping[str, Mapping[str, Mapping[str, Support]]],
        *,
        workloads: Sequence[Workload],
    ) -> tuple[PlacementTrial, ...]:
        """Return one trial for each base under which an addition would be quantised.

        `supports` is, by base, how the runtime treats each layer in each format.
        """
        uniform = {base: self._uniform(base, supports[base]) for base in supports}
        counts = {
            base: len(quantised_additions(assignment, additions=self.additions))
            for base, assignment in uniform.items()
        }
        bases = [base for base, count in counts.items() if count]
        if not bases:
            return ()
        found = {
            each.name: self._remembered(uniform, bases=bases, workload=each) for each in workloads
        }
        return tuple(_trial(base, additions=counts[base], found=found) for base in bases)

    def _uniform(self, base: str, support: Mapping[str, Mapping[str, Support]]) -> dict[str, str]:
        """Return every layer in the first static format that a kernel runs, others in the base."""
        static = [name for name in self.formats if format_named(name).is_static]
        return {
            layer: next(
                (name for name in static if support[layer].get(name) is Support.NATIVE), base
            )
            for layer in self.graph.names
        }

    def _remembered(
        self, uniform: Mapping[str, Mapping[str, str]], *, bases: Sequence[str], workload: Workload
    ) -> dict[str, Any]:
        key = self._key(uniform, workload)
        known = None if self.cache is None else self.cache.get(_KIND, key)
        if known is None:
            known = self._timed(uniform, bases=bases, workload=workload)
            if self.cache is not None:
                self.cache.put(_KIND, key, value=known)
        return known

    def _timed(
        self, uniform: Mapping[str, Mapping[str, str]], *, bases: Sequence[str], workload: Workload
    ) -> dict[str, Any]:
        """Return seconds and errors of every plan by base, and what did not build."""
        built: dict[tuple[str, str], AbstractExecutable] = {}
        broken: dict[str, str] = {}
        for base in bases:
            for kind in (PLAIN, LAYER_INPUTS, RESIDUAL_ADDS):
                try:
                    built[base, kind] = self._built(
                        uniform[base], base=base, kind=kind, workload=workload
                    )
                except DeploymentError as error:
                    if kind == RESIDUAL_ADDS:
                        broken[base] = str(error)
        if len(broken) == len(bases):
            return {"seconds": {}, "stderr": {}, "broken": broken}
        timings = time_together(
            list(built.values()),
            relative_error=_RELATIVE_ERROR,
            time_limit_seconds=_SECONDS_PER_PLAN * len(built),
            generator=np.random.default_rng(self.seed),
            state=self.state,
            phase=_PHASE,
            progress=self.progress,
        )
        found: dict[str, Any] = {
            "seconds": {base: {} for base in bases},
            "stderr": {base: {} for base in bases},
            "broken": broken,
        }
        for place, (base, kind) in enumerate(built):
            found["seconds"][base][kind] = float(timings.seconds[place])
            found["stderr"][base][kind] = float(timings.stderr[place])
        return found

    def _built(
        self, assignment: Mapping[str, str], *, base: str, kind: str, workload: Workload
    ) -> AbstractExecutable:
        settings = self.runtime.settings(base)
        chosen = dict.fromkeys(self.graph.names, base) if kind == PLAIN else assignment
        addends = addend_quantizers(
            self.quantizers,
            assignment=chosen,
            additions=self.additions if kind == RESIDUAL_ADDS else {},
        )
        own = {key: each for key, each in self.quantizers.items() if not is_addend(key)}
        plan = Plan(
            assignment=chosen,
            base=base,
            placement=RESIDUAL_ADDS if kind == RESIDUAL_ADDS else LAYER_INPUTS,
            runtime=self.runtime.name,
            settings=settings,
            quantizers=own | addends,
        )
        executable = self.runtime.build(
            export_plan(self.base, plan), settings=settings, threads=self.threads, workload=workload
        )
        executable.run(example_inputs(self.base, workload))
        return executable

    def _key(self, uniform: Mapping[str, Mapping[str, str]], workload: Workload) -> str:
        return content_hash(
            _REVISION,
            self.graph.fingerprint,
            {base: [each[layer] for layer in self.graph.names] for base, each in uniform.items()},
            # Some runtimes compile only sums of codes around zero.
            {key: each.zero_point for key, each in self.quantizers.items()},
            list(self.additions),
            sorted((name, list(shape)) for name, shape in workload.shapes.items()),
            asdict(self.runtime.device(self.threads)),
            self.runtime.revision,
        )


def _trial(base: str, *, additions: int, found: Mapping[str, Mapping[str, Any]]) -> PlacementTrial:
    """Put together what was found at each workload for one base."""
    seconds = {name: dict(each["seconds"].get(base, {})) for name, each in found.items()}
    stderr = {name: dict(each["stderr"].get(base, {})) for name, each in found.items()}
    fastest: dict[str, float] = {}
    gains = []
    for name, each in found.items():
        rivals = [
            (time, each["stderr"][other][kind])
            for other, kinds in each["seconds"].items()
            for kind, time in kinds.items()
            if kind != RESIDUAL_ADDS
        ]
        if not rivals or RESIDUAL_ADDS not in seconds[name]:
            continue
        fastest[name], error = min(rivals)
        noise = math.hypot(error, stderr[name][RESIDUAL_ADDS])
        if seconds[name][RESIDUAL_ADDS] + _MARGIN * noise < fastest[name]:
            gains.append(name)
    broken = [each["broken"][base] for each in found.values() if base in each["broken"]]
    return PlacementTrial(
        base=base,
        additions=additions,
        seconds=seconds,
        stderr=stderr,
        broken=broken[0] if broken else "",
        fastest=fastest,
        # A plan must build at every workload.
        gains=() if broken else tuple(gains),
    )
