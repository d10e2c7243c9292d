"""From measured whole plans to the latency rows of a cost table."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Int
from numpy import ndarray

from mpsearch.core.graph import LayerGraph
from mpsearch.core.hardware import Resource
from mpsearch.core.tables import Calibration, CostTable, MeasuredPlan
from mpsearch.cost.node_table import (
    NO_PRODUCER,
    LatencyModel,
    Observations,
    calibrated,
    fit_node_table,
    held_out_errors,
    nearest_producers,
)
from mpsearch.cost.sampling import assignment_of, choice_of, covering_choices, random_choices
from mpsearch.cost.whole_plans import PlanTimer, TimedPlan
from mpsearch.errors import MeasurementError

_LOG = logging.getLogger("mpsearch.cost")
# Eight random plans brought MiniLM's error to 2.0 to 2.4 %, sixteen to 1.9 to 2.5 %.
RANDOM_PLANS = 8
_FEWEST_PLANS = 4  # a fit to fewer says nothing about plans it has not seen
_NANOSECONDS = 1e9
_LATENCY = str(Resource.LATENCY_NS)


def with_latency(
    table: CostTable,
    graph: LayerGraph,
    *,
    timer: PlanTimer,
    references: Sequence[Mapping[str, str]],
    seed: int,
) -> CostTable:
    """Return the table with latency per layer and edge, its calibration and measured plans.

    Raises:
        MeasurementError: Fewer than four plans could be built and timed.
    """
    asked = _plans(table, graph, references=references, seed=seed)
    roles = {_identity(assignment): role for assignment, role in asked}
    timed = timer.measure([assignment for assignment, _ in asked])
    if len(timed) < _FEWEST_PLANS:
        raise MeasurementError(
            f"{len(timed)} of {len(asked)} plans could be built and timed. Expected at least "
            f"{_FEWEST_PLANS}. The log names the reasons; leave out the formats it blames."
        )
    observed = Observations(
        choice=np.stack(
            [choice_of(p.assignment, layers=table.layers, formats=table.formats) for p in timed]
        ),
        layer_seconds=np.stack([plan.layers for plan in timed]),
        seconds=np.array([plan.seconds for plan in timed]),
        stderr=np.array([plan.stderr for plan in timed]),
    )
    signatures = [layer.signature for layer in graph.layers]
    producers = nearest_producers(graph)
    formats = len(table.formats)
    fitted = fit_node_table(observed, signatures=signatures, producers=producers, formats=formats)
    mixed = [n for n, plan in enumerate(timed) if roles[_identity(plan.assignment)] == "random"]
    errors = held_out_errors(
        observed, signatures=signatures, producers=producers, formats=formats, held_out=mixed
    )
    model = calibrated(fitted, observed)
    calibration = Calibration(
        offset=model.offset * _NANOSECONDS,
        slope=model.slope,
        relative_error=float(np.sqrt(np.mean(errors**2))) if len(errors) else 0.0,
        repeatability=float(np.median([plan.repeatability for plan in timed])),
    )
    return replace(
        _with_model(table, model),
        calibration={**table.calibration, _LATENCY: calibration},
        measured=tuple(
            _measured(plan, table=table, role=roles[_identity(plan.assignment)]) for plan in timed
        ),
    )


def _plans(
    table: CostTable,
    graph: LayerGraph,
    *,
    references: Sequence[Mapping[str, str]],
    seed: int,
) -> list[tuple[Mapping[str, str], str]]:
    """Return what to measure with its role: references, what covers all formats, random ones."""
    layers, formats, allowed = table.layers, table.formats, _measurable(table)
    given = [dict(each) for each in references] or [dict.fromkeys(layers, table.base)]
    choices = np.stack([choice_of(each, layers=layers, formats=formats) for each in given])
    generator = np.random.default_rng(seed)
    random = random_choices(allowed, count=RANDOM_PLANS, generator=generator)
    cover = covering_choices(
        allowed, signatures=[layer.signature for layer in graph.layers], measured=choices
    )
    plans = [(each, "reference") for each in given]
    for role, rows in (("cover", cover), ("random", random)):
        plans += [(assignment_of(row, layers=layers, formats=formats), role) for row in rows]
    distinct: dict[tuple[tuple[str, str], ...], tuple[Mapping[str, str], str]] = {}
    for assignment, role in plans:
        distinct.setdefault(_identity(assignment), (assignment, role))
    return list(distinct.values())


def _measurable(table: CostTable) -> Bool[ndarray, "L F"]:
    """Return what can be built; layers that share a weight share what each of them can."""
    allowed = table.allowed.copy()
    for group in table.shared_weights:
        allowed[list(group)] = allowed[list(group)].all(axis=0)
    return allowed


def _with_model(table: CostTable, model: LatencyModel) -> CostTable:
    edges = tuple(
        (int(producer), consumer)
        for consumer, producer in enumerate(model.producer)
        if producer != NO_PRODUCER
    )
    consumers = np.array([consumer for _, consumer in edges], dtype=np.int64)
    return replace(
        table,
        amount={**table.amount, _LATENCY: _whole(model.layer * model.slope)},
        constant={**table.constant, _LATENCY: round(model.offset * _NANOSECONDS)},
        edges=edges,
        edge_amount={_LATENCY: _whole(model.edge[consumers] * model.slope)} if edges else {},
    )


def _whole(seconds: ndarray) -> Int[ndarray, "..."]:
    return np.rint(seconds * _NANOSECONDS).astype(np.int64)


def _measured(plan: TimedPlan, *, table: CostTable, role: str) -> MeasuredPlan:
    return MeasuredPlan(
        assignment=plan.assignment,
        base=table.base,
        placement=table.placement,
        amount={
            _LATENCY: plan.seconds * _NANOSECONDS,
            "latency_stderr_ns": plan.stderr * _NANOSECONDS,
            "latency_p99_ns": plan.tail * _NANOSECONDS,
            str(Resource.WEIGHT_BYTES): float(plan.weight_bytes),
        },
        role=role,
    )


def _identity(assignment: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(assignment.items()))
