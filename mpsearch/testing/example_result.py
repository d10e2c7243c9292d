"""A made-up result of a transformer of any depth, shaped as a real one."""

from dataclasses import dataclass

import numpy as np

from mpsearch.core.graph import Layer, LayerGraph, Op
from mpsearch.core.hardware import Device, Support, Workload
from mpsearch.core.plan import Budget, Plan
from mpsearch.core.provenance import Provenance
from mpsearch.core.tables import CostTable, SensitivityTable
from mpsearch.core.verification import Verification
from mpsearch.report import TriedPlan

FORMATS = ("bf16", "w8a8", "w8", "w4g128", "w4")
_BITS = np.array([16, 8, 8, 4.25, 4])
_PARTS = (
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
)


@dataclass(frozen=True, kw_only=True)
class Point:
    """A point of a front."""

    limit: float
    loss: float
    spend: dict[str, float]
    base: str = "bf16"


def graph(*, blocks: int, first: str = "embeddings.word_embeddings") -> LayerGraph:
    """Return embeddings, blocks of six Linear layers, and a pooler."""
    layers = [_layer(first, Op.EMBEDDING, shape=(30522, 384))]
    layers += [_layer("embeddings.position_embeddings", Op.EMBEDDING, shape=(512, 384))]
    for block in range(blocks):
        for part in _PARTS:
            wide = {"intermediate.dense": (1536, 384), "output.dense": (384, 1536)}
            name = f"encoder.layer.{block}.{part}"
            layers.append(_layer(name, Op.LINEAR, shape=wide.get(part, (384, 384))))
    layers.append(_layer("pooler.dense", Op.LINEAR, shape=(384, 384)))
    return LayerGraph(layers=tuple(layers), edges=(), fingerprint="5f3a9c")


def _layer(name: str, operator: Op, *, shape: tuple[int, int]) -> Layer:
    return Layer(
        name=name,
        op=operator,
        weight_shape=shape,
        input_shape=(1, 32, shape[1]),
        output_shape=(1, 32, shape[0]),
        macs=32 * shape[0] * shape[1] * (operator is Op.LINEAR),
        inputs_from=name,
    )


def sensitivity(layers: LayerGraph) -> SensitivityTable:
    """Return losses over four decades, a few of them below zero or missing."""
    generator = np.random.default_rng(0)
    count = len(layers.layers)
    scale = 10 ** generator.normal(-3.5, 0.6, size=(count, 1))
    loss = scale * np.array([0.0, 0.6, 0.02, 0.7, 1.0]) * generator.uniform(0.7, 1.3, (count, 5))
    loss[2, 2], loss[3, 3] = -1e-6, np.nan
    return SensitivityTable(
        layers=layers.names,
        formats=FORMATS,
        loss=loss,
        stderr=np.abs(loss) * 0.1,
        metric="output_error",
        unit="squared output error per sample",
        base_loss={"bf16": 1.2e-5},
        samples=256,
    )


def cost(layers: LayerGraph) -> CostTable:
    """Return bytes as they are, and latency as differences to the base."""
    parameters = np.array([layer.parameters for layer in layers.layers])
    macs = np.array([layer.macs for layer in layers.layers])
    quicker = np.array([0.0, -0.035, -0.004, 0.012, 0.02])
    return CostTable(
        layers=layers.names,
        formats=FORMATS,
        base="bf16",
        placement="layer_inputs",
        amount={
            "weight_bytes": np.round(parameters[:, None] * _BITS / 8).astype(np.int64),
            "latency_ns": np.round(macs[:, None] * quicker / 2).astype(np.int64),
        },
        constant={"weight_bytes": 60_000, "latency_ns": 400_000 * len(layers.layers)},
        support=tuple((Support.NATIVE,) * len(FORMATS) for _ in layers.layers),
        device=Device(name="a CPU", runtime="openvino", threads=1),
    )


def plan(layers: LayerGraph) -> Plan:
    """Return a mixed plan with two budgets."""
    costs = cost(layers)
    generator = np.random.default_rng(1)
    formats = generator.choice(FORMATS, p=(0.15, 0.5, 0.1, 0.1, 0.15), size=len(layers.layers))
    assignment = dict(zip(layers.names, map(str, formats), strict=True))
    assignment[layers.names[0]] = "w4"
    spend = {name: float(value) for name, value in costs.spend(assignment).items()}
    return Plan(
        assignment=assignment,
        base="bf16",
        settings={"INFERENCE_PRECISION_HINT": "bf16", "SNIPPETS_MODE": "DISABLE"},
        workloads=(Workload(name="default", shapes={"input_ids": (1, 32)}),),
        budgets=(
            Budget(
                name="weight_bytes",
                text="18%",
                limit=spend["weight_bytes"] * 1.04,
                unit="B",
            ),
            Budget(
                name="latency",
                text="115% of fastest",
                limit=spend["latency_ns"] * 1.06,
                unit="ns",
                note="The fastest reference plan took 2.11 ms.",
            ),
        ),
        forecast={"loss": 0.0123, **spend},
        bound=0.0121,
        gap=0.00002,
        origin="optimum on base bf16, 2% room in latency",
        model="5f3a9c",
        provenance=Provenance(
            model="5f3a9c",
            data="b7712e",
            versions={"openvino": "2026.4.1", "torch": "2.13.0"},
            device="a CPU",
            created="2026-01-31T12:00:00Z",
        ),
    )


def verification(chosen: Plan) -> tuple[Verification, ...]:
    """Return rows that held, one that did not, and two that were only reported."""
    latency, size = chosen.forecast["latency_ns"], chosen.forecast["weight_bytes"]
    return (
        Verification(
            quantity="weight_bytes",
            unit="B",
            predicted=size,
            measured=size,
            tolerance=0.0,
            limit=chosen.budgets[0].limit,
        ),
        Verification(
            quantity="latency",
            unit="ns",
            predicted=latency,
            measured=latency * 1.021,
            interval=(latency * 1.014, latency * 1.028),
            tolerance=latency * 0.05,
            limit=chosen.budgets[1].limit,
            note="median of one inference, timed head to head",
        ),
        Verification(
            quantity="loss on validation data",
            unit="squared output error",
            predicted=0.0123,
            measured=0.0172,
            interval=(0.0160, 0.0184),
            tolerance=0.0042,
            passed=False,
            note="570 samples that the search has not used",
        ),
        Verification(quantity="cosine on test data", unit="share", measured=0.99138),
        Verification(quantity="top10_agreement on test data", unit="share", measured=0.9257),
    )


def tried(chosen: Plan) -> tuple[TriedPlan, ...]:
    """Return the chosen plan, a candidate, references, and one that was not built."""
    found = [
        TriedPlan(
            plan=chosen,
            is_reference=False,
            keeps=True,
            amount={**chosen.forecast, "latency_ns": chosen.forecast["latency_ns"] * 1.021},
            loss=0.0172,
            stderr=0.0006,
            fidelity={"cosine": 0.9914},
        )
    ]
    others = (
        ("rank 2 on base bf16", False, "w8a8", 1.02, 1.01, 0.0181),
        ("reference: w8a8 everywhere", True, "w8a8", 1.35, 0.97, 0.0151),
        ("reference: w8 everywhere", True, "w8", 1.33, 1.22, 0.0012),
        ("reference: w4 everywhere", True, "w4", 0.78, 1.31, 0.2451),
    )
    for name, is_reference, format_, size, latency, loss in others:
        assignment = dict.fromkeys(chosen.assignment, format_) | {"changed": "bf16"}
        found.append(
            TriedPlan(
                plan=Plan(assignment=assignment, base="bf16", origin=name),
                is_reference=is_reference,
                keeps=not is_reference,
                amount={
                    "weight_bytes": chosen.forecast["weight_bytes"] * size,
                    "latency_ns": chosen.forecast["latency_ns"] * latency,
                },
                loss=loss,
                stderr=loss * 0.04,
            )
        )
    broken = Plan(assignment=dict.fromkeys(chosen.assignment, "bf16"), origin="rank 3")
    return (
        *found,
        TriedPlan(plan=broken, is_reference=False, keeps=False, broken="it did not compile"),
    )


def front(chosen: Plan) -> tuple[Point, ...]:
    """Return a falling front round the chosen plan."""
    size = chosen.forecast["weight_bytes"]
    shares = np.linspace(0.72, 1.5, 14)
    return tuple(
        Point(
            limit=float(size * share),
            loss=float(0.0123 * np.exp(5.5 * (1 - share))),
            spend={"weight_bytes": float(size * share * 0.995)},
        )
        for share in shares
    )
