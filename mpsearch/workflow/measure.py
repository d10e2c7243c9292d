"""Measure once: how much each format hurts each layer, and what it costs on the device."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Final, final

from mpsearch.core.files import save_table
from mpsearch.core.formats import BASES, format_named
from mpsearch.core.graph import LayerGraph, Op
from mpsearch.core.placement import LAYER_INPUTS, quantised_additions
from mpsearch.core.plan import ActivationQuantizer
from mpsearch.core.progress import Progress
from mpsearch.core.tables import CostTable, SensitivityTable
from mpsearch.cost import CoreState, profile_workloads
from mpsearch.errors import FormatError, UnsupportedFeatureError
from mpsearch.execution import dynamic_group_of, observe_ranges
from mpsearch.formulation.envelope import monotone_envelope
from mpsearch.quant.ranges import DEFAULT_RANGE_METHOD
from mpsearch.runtimes import RUNTIMES, AbstractRuntime
from mpsearch.search import reference_assignments
from mpsearch.sensitivity.metric import AbstractMetric
from mpsearch.sensitivity.output_changes import OutputChanges
from mpsearch.workflow.changes import EXACT, Scope, exact_changes, exact_table, unless_fixed
from mpsearch.workflow.constant_loss import base_loss
from mpsearch.workflow.device_names import runtime_on
from mpsearch.workflow.estimate import announce, estimated_seconds
from mpsearch.workflow.offered import SupportByLayer, offered, supported
from mpsearch.workflow.placements import Placements, placements_worth_profiling
from mpsearch.workflow.prepare import (
    JOINTLY,
    ModelSource,
    Prepared,
    TaskSource,
    offers_products,
    prepare,
)
from mpsearch.workflow.reading import DataSource
from mpsearch.workflow.workloads import WorkloadRequest

_BITS: Final = ("w8", "w6", "w5", "w4", "w3", "w2")
# Unless formats are asked for. Rows of a table and channels of a convolution take one scale
# each; of a matrix, groups lose less than rows at nearly the same size. No runtime here reads
# codes as the input of a transposed convolution.
_DEFAULT_FORMATS: Final[Mapping[str, Mapping[Op, tuple[str, ...]]]] = {
    "openvino": {
        Op.LINEAR: ("w8a8", "w8", "w4g128"),
        Op.CONV: ("w8a8", "w8", "w4"),
        Op.CONV_TRANSPOSE: ("w8", "w4"),
        Op.EMBEDDING: ("w8", "w4"),
    },
    "onnxruntime": {
        Op.LINEAR: ("w8a8", "w8a8-dynamic", "w8", "w4g128"),
        Op.CONV: ("w8a8", "w8", "w4"),
        Op.CONV_TRANSPOSE: ("w8", "w4"),
        Op.EMBEDDING: ("w8", "w4"),
    },
    "torch": {
        Op.LINEAR: ("w8a8",),
        Op.CONV: ("w8a8", "w8", "w4"),
        Op.CONV_TRANSPOSE: ("w8", "w4"),
        Op.EMBEDDING: ("w8",),
    },
    "torch_cuda": {
        Op.LINEAR: ("w8a8", "fp8", "w4g128"),
        Op.CONV: ("w8", "w4"),
        Op.CONV_TRANSPOSE: ("w8", "w4"),
        Op.EMBEDDING: ("w8",),
    },
    "simulation": dict.fromkeys(Op, _BITS),
}


@final
@dataclass(frozen=True, kw_only=True)
class Measured:
    """One sensitivity table, and one cost table per base and placement that was tried.

    `changes` are those of the output, where they were asked for; `scope` says which pairs.
    `notes` say which placements were tried, and how fast they were.
    """

    sensitivity: SensitivityTable
    costs: tuple[CostTable, ...]
    graph: LayerGraph
    scope: Scope
    changes: OutputChanges | None = None
    notes: tuple[str, ...] = ()

    def save(self, folder: Path) -> None:
        """Write `sensitivity.npz` and `costs-<base>-<placement>.npz` into a folder."""
        save_table(self.sensitivity, folder / "sensitivity.npz")
        for cost in self.costs:
            save_table(cost, folder / f"costs-{cost.base}-{cost.placement}.npz")


def measure(  # noqa: PLR0913  # the names that other programs rely on
    model: ModelSource,
    calibration: DataSource = None,
    *,
    task: TaskSource = "auto",
    validation: DataSource | None = None,
    formats: Sequence[str] | None = None,
    device: str = "cpu",
    runtime: str = "openvino",
    workloads: WorkloadRequest | None = None,
    threads: int = 1,
    seed: int = 0,
    cache: Path | str | None = None,
    progress: Progress | None = None,
    metric: str = EXACT,
    ranges: str = DEFAULT_RANGE_METHOD,
    pairs: str = JOINTLY,
) -> Measured:
    """Measure sensitivity and cost of a model; see `mpsearch.search` for the arguments.

    `metric` is a name in `mpsearch.sensitivity.METRICS`.

    Everything measured is cached by content: a second run measures nothing, and a run that
    was killed goes on where it was.
    """
    runtime = runtime_on(device, runtime)
    prepared = prepare(
        model,
        calibration,
        task=task,
        validation=validation,
        test=None,
        runtime=runtime,
        workloads=workloads,
        cache=cache,
        progress=progress,
        ranges=ranges,
        pairs=pairs,
        has_products=offers_products(formats),
    )
    return measure_prepared(
        prepared,
        formats=formats,
        runtime=runtime,
        threads=threads,
        seed=seed,
        progress=progress,
        metric=metric,
    )


def measure_prepared(
    prepared: Prepared,
    *,
    formats: Sequence[str] | None,
    runtime: str,
    threads: int,
    seed: int,
    progress: Progress | None,
    metric: str | AbstractMetric = EXACT,
    keeps_changes: bool = False,
    fixed: Mapping[str, str] | None = None,
) -> Measured:
    """Measure what `prepare` made ready; changes of the output by the exact metric only.

    Layers that `fixed` (patterns) pins are measured in that format alone.
    """
    engine = runtime_named(runtime)
    names = _checked_formats(formats, runtime=runtime)
    announce(estimated_seconds(prepared, formats=names, bases=len(engine.bases)))
    scope, supports = scope_of(
        prepared, formats=formats, runtime=runtime, fixed=fixed, progress=progress
    )
    state = CoreState()
    placements = placements_worth_profiling(
        prepared,
        engine=engine,
        formats=names,
        supports=supports,
        quantizers=scope.quantizers,
        threads=threads,
        seed=seed,
        state=state,
        progress=progress,
    )
    costs = tuple(
        _profile(
            prepared,
            engine=engine,
            ground=ground,
            formats=names,
            support=supports[ground[0]],
            quantizers=placements.quantizers,
            threads=threads,
            seed=seed,
            state=state,
            progress=progress,
        )
        for ground in placements.grounds
    )
    # Changes of the output belong to whole formats.
    keeps = keeps_changes and not prepared.is_apart
    changes = exact_changes(prepared, scope, progress=progress) if keeps else None
    if changes is None:
        table = scope.table(metric, prepared=prepared, seed=seed, progress=progress)
    else:
        table = exact_table(changes, scope=scope, seed=seed)
    return Measured(
        sensitivity=_completed(table, prepared, bases=engine.bases, placements=placements),
        costs=costs,
        graph=prepared.traced.graph,
        scope=scope,
        changes=changes,
        notes=placements.notes,
    )


def _completed(
    table: SensitivityTable, prepared: Prepared, *, bases: Sequence[str], placements: Placements
) -> SensitivityTable:
    """Return the table with the losses of bases and placements, and monotone in bits."""
    measured = replace(
        table,
        base_loss={base: base_loss(prepared, base=base) for base in bases},
        placement_loss=placements.loss,
        quantizers=placements.quantizers,
    )
    # Noise must not make fewer bits look better: an optimiser would take them for nothing.
    return monotone_envelope(measured).table


def scope_of(
    prepared: Prepared,
    *,
    formats: Sequence[str] | None,
    runtime: str,
    fixed: Mapping[str, str] | None,
    progress: Progress | None,
) -> tuple[Scope, dict[str, SupportByLayer]]:
    """Return what is measured, and by base how the runtime treats each layer in each format."""
    engine = runtime_named(runtime)
    names = _checked_formats(formats, runtime=runtime)
    supports, choices = _offers(prepared, engine=engine, formats=names, is_default=formats is None)
    scope = Scope(
        formats=names,
        offered=unless_fixed(choices, fixed=fixed or {}),
        quantizers=_quantizers(prepared, formats=names, progress=progress),
        dynamic_group=dynamic_group_of(runtime, engine.settings(engine.bases[0])),
        is_apart=prepared.is_apart,
    )
    return scope, supports


def default_formats(runtime: str) -> tuple[str, ...]:
    """Return the formats that are tried under a runtime unless others are asked for."""
    return tuple(dict.fromkeys(chain.from_iterable(_DEFAULT_FORMATS[runtime].values())))


def runtime_named(name: str) -> AbstractRuntime:
    """Return the runtime called `name`.

    Raises:
        UnsupportedFeatureError: There is none of this name.
    """
    if name not in RUNTIMES:
        raise UnsupportedFeatureError(
            f"Runtime {name!r} is unknown. Expected one of {', '.join(RUNTIMES)}. "
            "Choose one of them."
        )
    return RUNTIMES[name]


def _checked_formats(formats: Sequence[str] | None, *, runtime: str) -> tuple[str, ...]:
    """Return the formats to try, less the bases, which are always there."""
    known = default_formats(runtime)
    chosen = known if formats is None else tuple(formats)
    names = tuple(name for name in chosen if name not in BASES)
    for name in names:
        format_named(name)
    if not names:
        raise FormatError(
            f"The formats {list(chosen)} hold none smaller than a base. Expected at least one of "
            f"{', '.join(known)} besides {', '.join(BASES)}. Add one."
        )
    return names


def _offers(
    prepared: Prepared, *, engine: AbstractRuntime, formats: Sequence[str], is_default: bool
) -> tuple[dict[str, SupportByLayer], dict[str, tuple[str, ...]]]:
    """Return the support of each layer by base, and what that leaves to choose from."""
    defaults = _DEFAULT_FORMATS[engine.name]
    supports: dict[str, SupportByLayer] = {
        base: supported(
            prepared.traced.graph,
            runtime=engine,
            base=base,
            formats=formats,
            narrowed=defaults if is_default else None,
            cache=prepared.cache,
        )
        for base in engine.bases
    }
    choices = offered(
        tuple(supports.values()),
        runtime=engine.name,
        formats=formats,
        examples=defaults[Op.LINEAR],
    )
    return supports, choices


def _quantizers(
    prepared: Prepared, *, formats: Sequence[str], progress: Progress | None
) -> dict[str, ActivationQuantizer]:
    if not any(format_named(name).is_static for name in formats):
        return {}
    return observe_ranges(
        prepared.traced,
        prepared.calibration,
        method=prepared.ranges,
        cache=prepared.cache,
        progress=progress,
    )


def _profile(
    prepared: Prepared,
    *,
    engine: AbstractRuntime,
    ground: tuple[str, str],
    formats: Sequence[str],
    support: SupportByLayer,
    quantizers: Mapping[str, ActivationQuantizer],
    threads: int,
    seed: int,
    state: CoreState,
    progress: Progress | None,
) -> CostTable:
    graph, (base, placement) = prepared.traced.graph, ground
    references = reference_assignments(graph, base=base, formats=formats, support=support)
    if placement != LAYER_INPUTS:  # others are the same plans under either placement
        references = tuple(
            each for each in references if quantised_additions(each, additions=graph.additions)
        )
    return profile_workloads(
        base=prepared.base,
        graph=graph,
        runtime=engine,
        formats=(base, *formats),
        base_precision=base,
        placement=placement,
        workloads=prepared.workloads,
        threads=threads,
        quantizers=quantizers,
        references=references,
        support=support,
        cache=prepared.cache,
        progress=progress,
        seed=seed,
        state=state,
    )
