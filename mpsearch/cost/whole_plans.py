"""Build whole plans and measure them: median time, and what each layer takes of it."""

import gc
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
import onnx
from jaxtyping import Float
from numpy import ndarray
from numpy.random import Generator

from mpsearch.core.cache import Cache, content_hash
from mpsearch.core.graph import LayerGraph
from mpsearch.core.hardware import Workload
from mpsearch.core.placement import addend_quantizers, is_addend
from mpsearch.core.plan import ActivationQuantizer, Plan
from mpsearch.core.progress import Progress, tracked
from mpsearch.core.tables import CostTable
from mpsearch.cost.attribution import layer_seconds
from mpsearch.cost.timing import CoreState, time_together
from mpsearch.errors import DeploymentError
from mpsearch.export import export_plan, weight_bytes
from mpsearch.runtimes import AbstractExecutable, AbstractRuntime

_LOG = logging.getLogger("mpsearch.cost")
_KIND = "plan_times"
_REVISION = 2  # of what is stored; raise it when a measured plan would come out differently
_PHASE = "latency of whole plans"
_LARGEST_GROUP = 8  # plans timed in turns with the anchor
_GROUP_BYTES = 1_500_000_000  # of compiled plans in memory at once
_COPIES = 2  # a compiled plan holds its weights as read and as packed for the kernel
# Half a percent per plan is well below what the model is off; on a busy machine time ends it.
_RELATIVE_ERROR = 0.005
_SECONDS_PER_PLAN = 0.8


@final
@dataclass(frozen=True, kw_only=True)
class TimedPlan:
    """A plan that was built and timed, and the seconds that each of L layers takes of it.

    `repeatability` is that of its group, `tail` the 99th percentile, see `Timings`.
    """

    assignment: Mapping[str, str]
    seconds: float
    stderr: float
    layers: Float[ndarray, " L"]
    weight_bytes: int
    repeatability: float
    tail: float


@final
@dataclass(frozen=True, kw_only=True)
class PlanTimer:
    """Builds plans of one model under the base, placement and workload of `table`, and times them.

    Each measured plan is one entry of the cache, so that a killed run goes on with the
    next group. The first plan ever asked for is timed again in each group (the anchor), and
    times of different groups are compared through it.
    """

    base: onnx.ModelProto
    graph: LayerGraph
    runtime: AbstractRuntime
    table: CostTable
    quantizers: Mapping[str, ActivationQuantizer]
    cache: Cache | None
    generator: Generator
    progress: Progress | None = None
    state: CoreState = field(default_factory=CoreState)

    def measure(self, assignments: Sequence[Mapping[str, str]]) -> list[TimedPlan]:
        """Return the plans that build, in the order given; the first of them is the anchor.

        A plan that the runtime does not compile is left out and a warning says why.
        """
        keys = [self._key(assignment) for assignment in assignments]
        entries: dict[str, dict[str, Any]] = {}
        for key in keys:
            known = None if self.cache is None else self.cache.get(_KIND, key)
            if known is not None:
                entries[key] = known
        wanted = {k: a for k, a in zip(keys, assignments, strict=True) if k not in entries}
        for key, entry in self._measured(wanted, anchor=assignments[0]):
            entries[key] = entry
            if self.cache is not None:
                self.cache.put(_KIND, key, value=entry)
        typical = float(np.median([e["anchor"] for e in entries.values() if e["layers"]] or [1]))
        return [
            _timed(entries[key], assignment=assignment, anchor=typical)
            for key, assignment in zip(keys, assignments, strict=True)
            if entries[key]["layers"]
        ]

    def _measured(
        self, wanted: Mapping[str, Mapping[str, str]], *, anchor: Mapping[str, str]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        if not wanted:
            return
        size = self._group_size()
        keys = list(wanted)
        groups = [keys[start : start + size] for start in range(0, len(keys), size)]
        steps = tracked(keys, _PHASE, total=len(keys), progress=self.progress)
        reference, _ = self._built(anchor)
        for group in groups:
            built: dict[str, tuple[AbstractExecutable, int]] = {}
            for key, _step in zip(group, steps, strict=False):
                try:
                    built[key] = self._built(wanted[key])
                except DeploymentError as error:
                    _LOG.warning("A plan is left out of the profile: %s", error)
                    yield key, _left_out(str(error))
            yield from self._timed_group(built, reference=reference)
            built.clear()
            gc.collect()
        next(steps, None)

    def _timed_group(
        self,
        built: Mapping[str, tuple[AbstractExecutable, int]],
        *,
        reference: AbstractExecutable,
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        executables = [executable for executable, _ in built.values()]
        timings = time_together(
            [reference, *executables],
            relative_error=_RELATIVE_ERROR,
            time_limit_seconds=_SECONDS_PER_PLAN * (1 + len(executables)),
            generator=self.generator,
            state=self.state,
        )
        for place, (key, (executable, size)) in enumerate(built.items(), start=1):
            seconds = float(timings.seconds[place])
            layers = layer_seconds(
                executable.node_times(), layers=self.graph.names, whole_seconds=seconds
            )
            yield (
                key,
                {
                    "seconds": seconds,
                    "stderr": float(timings.stderr[place]),
                    "anchor": float(timings.seconds[0]),
                    "tail": float(timings.tail[place]),
                    "layers": layers.tolist(),
                    "weight_bytes": size,
                    "repeatability": timings.repeatability,
                    "contended": timings.contended,
                },
            )

    def _built(self, assignment: Mapping[str, str]) -> tuple[AbstractExecutable, int]:
        (workload,) = self.table.workloads
        settings = self.table.settings
        own = {key: each for key, each in self.quantizers.items() if not is_addend(key)}
        addends = addend_quantizers(
            self.quantizers, assignment=assignment, additions=self.table.additions or {}
        )
        plan = Plan(
            assignment=assignment,
            base=self.table.base,
            placement=self.table.placement,
            runtime=self.runtime.name,
            settings=settings,
            quantizers=own | addends,
        )
        model = export_plan(self.base, plan)
        executable = self.runtime.build(
            model,
            settings=settings,
            threads=self.table.device.threads,
            workload=workload,
            profile=True,
        )
        executable.run(example_inputs(self.base, workload))
        return executable, weight_bytes(model)

    def _group_size(self) -> int:
        fitting = _GROUP_BYTES // (_COPIES * max(weight_bytes(self.base), 1))
        return int(np.clip(fitting, 1, _LARGEST_GROUP))

    def _key(self, assignment: Mapping[str, str]) -> str:
        table, device = self.table, self.table.device
        return content_hash(
            _REVISION,
            self.graph.fingerprint,
            [[name, assignment[name]] for name in self.graph.names],
            [table.base, table.placement, dict(table.settings)],
            [
                sorted((name, list(shape)) for name, shape in w.shapes.items())
                for w in table.workloads
            ],
            [device.name, device.runtime, device.threads, dict(device.software)],
            self.runtime.revision,
            *self._smoothed(),
        )

    def _smoothed(self) -> list[list[str]]:
        """Return the layers whose channels are evened out, which takes time, if there are any."""
        found = sorted(name for name, each in self.quantizers.items() if each.exponents)
        return [found] if found else []


def example_inputs(base: onnx.ModelProto, workload: Workload) -> dict[str, ndarray]:
    """Return inputs of a workload's shapes: ones for whole numbers, normal noise for others.

    One is a valid row of any table with two and an open mask; time depends on shapes.
    """
    generator = np.random.default_rng(0)
    inputs: dict[str, ndarray] = {}
    for value in base.graph.input:
        if value.name not in workload.shapes:
            continue
        kind = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        shape = workload.shapes[value.name]
        is_float = np.issubdtype(kind, np.floating)
        numbers = generator.standard_normal(shape) if is_float else np.ones(shape)
        inputs[value.name] = numbers.astype(kind)
    return inputs


def _left_out(reason: str) -> dict[str, Any]:
    return {"layers": [], "reason": reason}


def _timed(entry: Mapping[str, Any], *, assignment: Mapping[str, str], anchor: float) -> TimedPlan:
    """Bring an entry to the typical state of the machine, as its group's anchor shows it."""
    scale = anchor / entry["anchor"]
    return TimedPlan(
        assignment=dict(assignment),
        seconds=entry["seconds"] * scale,
        stderr=entry["stderr"] * scale,
        layers=np.array(entry["layers"], dtype=np.float64) * scale,
        weight_bytes=int(entry["weight_bytes"]),
        repeatability=float(entry["repeatability"]),
        tail=float(entry["tail"]) * scale,
    )
