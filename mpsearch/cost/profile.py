"""Profile a model on a device: one cost table per base precision and placement."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import onnx

from mpsearch.core.cache import Cache
from mpsearch.core.formats import format_named
from mpsearch.core.graph import LayerGraph
from mpsearch.core.hardware import Device, Resource, Support, Workload
from mpsearch.core.machine import installed_versions
from mpsearch.core.placement import LAYER_INPUTS, addend_keys
from mpsearch.core.plan import ActivationQuantizer, Plan
from mpsearch.core.progress import Progress
from mpsearch.core.provenance import Provenance
from mpsearch.core.tables import CostTable
from mpsearch.cost.bops import bops_table, weight_bits_table
from mpsearch.cost.latency_table import with_latency
from mpsearch.cost.timing import CoreState
from mpsearch.cost.weight_bytes import weight_bytes_table
from mpsearch.cost.whole_plans import PlanTimer
from mpsearch.errors import FormatError
from mpsearch.export import export_plan
from mpsearch.runtimes import AbstractRuntime

_PACKAGES = ("mpsearch", "numpy", "onnx")
_ADDITION_BYTES = 10  # two addends, each with a scale in float32 and a zero point


def profile(  # noqa: PLR0913 - what was measured depends on each of them
    base: onnx.ModelProto | None,
    graph: LayerGraph,
    *,
    runtime: AbstractRuntime,
    formats: Sequence[str],
    base_precision: str,
    workload: Workload,
    placement: str = LAYER_INPUTS,
    threads: int = 1,
    quantizers: Mapping[str, ActivationQuantizer] | None = None,
    references: Sequence[Mapping[str, str]] = (),
    support: Mapping[str, Mapping[str, Support]] | None = None,
    cache: Cache | None = None,
    progress: Progress | None = None,
    seed: int = 0,
    state: CoreState | None = None,
) -> CostTable:
    """Return what each layer costs in each format, and each boundary between formats.

    Bytes, BOPs and weight bits are exact. Latency is that of one pass over the workload, fitted
    to whole plans and the counters of their nodes, see `fit_node_table`. Each measured plan
    is kept in the cache and in `measured`.

    Args:
        base: The base ONNX file; None (a runtime that builds nothing) leaves latency out.
        graph: The layers.
        runtime: What builds and runs the plans.
        formats: The columns of the table; the base precision among them.
        base_precision: What everything runs in that no layer's format governs.
        workload: The shape of each input.
        placement: Where activations are quantised. Under `residual_adds`, plans quantise the
            graph's additions whose addends have quantisers.
        threads: Threads of one inference.
        quantizers: By layer, of its input; needed where a format quantises inputs. Of addends
            by `addend_keys`.
        references: Complete assignments to measure too, such as uniform plans.
        support: {layer: {format: support}}, what is absent is not offered; None asks the runtime.
        cache: Where measured plans are kept.
        progress: Told of each plan.
        seed: Of the random plans and of the order of slots.
        state: The core's best state seen so far; pass one object to several profiles.

    Raises:
        FormatError: The base precision is not among the formats.
        MeasurementError: Too few plans could be built and timed.
    """
    if support is None:
        support = support_of(
            graph, runtime=runtime, formats=formats, base=base_precision, cache=cache
        )
    given = quantizers or {}
    counted = replace(
        _counted(
            graph,
            base=base,
            formats=formats,
            base_precision=base_precision,
            placement=placement,
            support=support,
            quantizers=given,
        ),
        settings=_settings(
            base,
            graph,
            runtime=runtime,
            base_precision=base_precision,
            threads=threads,
            workload=workload,
        ),
        workloads=(workload,),
        device=runtime.device(threads),
        provenance=_provenance(graph, device=runtime.device(threads), seed=seed),
    )
    if base is None:
        return counted
    timer = PlanTimer(
        base=base,
        graph=graph,
        runtime=runtime,
        table=counted,
        quantizers=given,
        cache=cache,
        progress=progress,
        generator=np.random.default_rng(seed),
        state=CoreState() if state is None else state,
    )
    return with_latency(counted, graph, timer=timer, references=references, seed=seed)


def support_of(
    graph: LayerGraph,
    *,
    runtime: AbstractRuntime,
    formats: Sequence[str],
    base: str,
    cache: Cache | None,
) -> dict[str, dict[str, Support]]:
    """Return {layer: {format: support}}; the runtime is asked once per signature."""
    known: dict[str, dict[str, Support]] = {}
    for layer in graph.layers:
        if layer.signature not in known:
            known[layer.signature] = {
                name: runtime.support(layer, name, base=base, cache=cache) for name in formats
            }
    return {layer.name: known[layer.signature] for layer in graph.layers}


def _additions(
    graph: LayerGraph, *, placement: str, quantizers: Mapping[str, ActivationQuantizer]
) -> dict[str, str]:
    """Return the additions that plans of the placement may quantise."""
    if placement == LAYER_INPUTS:
        return {}
    return {
        addition: layer
        for addition, layer in graph.additions.items()
        if all(key in quantizers for key in addend_keys(addition))
    }


def _with_additions(table: CostTable, additions: Mapping[str, str]) -> CostTable:
    """Return the table with the bytes of addends' quantisers, where their layer is static."""
    stored = table.amount[Resource.WEIGHT_BYTES].copy()
    static = [format_named(name).is_static for name in table.formats]
    for layer in additions.values():
        stored[table.layers.index(layer), static] += _ADDITION_BYTES
    amount = {**table.amount, Resource.WEIGHT_BYTES: stored}
    return replace(table, amount=amount, additions=additions)


def _counted(
    graph: LayerGraph,
    *,
    base: onnx.ModelProto | None,
    formats: Sequence[str],
    base_precision: str,
    placement: str,
    support: Mapping[str, Mapping[str, Support]],
    quantizers: Mapping[str, ActivationQuantizer],
) -> CostTable:
    """Return the table of what needs no device."""
    if base_precision not in formats:
        raise FormatError(
            f"The base precision {base_precision!r} is not among the formats "
            f"{', '.join(formats)}. Expected it there, as layers may stay in it. Add it."
        )
    treated = tuple(
        tuple(support[layer].get(name, Support.NONE) for name in formats) for layer in graph.names
    )
    stored, rest = weight_bytes_table(
        graph,
        formats=formats,
        allowed=np.array([[kind is not Support.NONE for kind in row] for row in treated]),
        base=base,
        base_precision=base_precision,
        quantizers=quantizers,
    )
    table = CostTable(
        layers=graph.names,
        formats=tuple(formats),
        base=base_precision,
        placement=placement,
        amount={
            Resource.WEIGHT_BYTES: stored,
            Resource.BOPS: bops_table(graph, formats=formats, base=base_precision),
            Resource.WEIGHT_BITS: weight_bits_table(graph, formats=formats),
        },
        constant={Resource.WEIGHT_BYTES: rest},
        support=treated,
        shared_weights=graph.shared_weights,
        device=Device(name="", runtime="", threads=1),
    )
    return _with_additions(table, _additions(graph, placement=placement, quantizers=quantizers))


def _settings(
    base: onnx.ModelProto | None,
    graph: LayerGraph,
    *,
    runtime: AbstractRuntime,
    base_precision: str,
    threads: int,
    workload: Workload,
) -> dict[str, str]:
    """Return the runtime's settings under which every layer of this model shows its kernel."""
    settings = runtime.settings(base_precision)
    if base is None:
        return settings
    plain = Plan(assignment=dict.fromkeys(graph.names, base_precision), base=base_precision)
    return runtime.adapted(
        settings, model=export_plan(base, plain), threads=threads, workload=workload
    )


def _provenance(graph: LayerGraph, *, device: Device, seed: int) -> Provenance:
    return Provenance(
        model=graph.fingerprint,
        seed=seed,
        versions={**installed_versions(_PACKAGES), **device.software},
        device=device.name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
