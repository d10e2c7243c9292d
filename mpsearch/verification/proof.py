"""The proof of one plan: every promise beside its measurement, and test data looked at once."""

from collections.abc import Mapping, Sequence

from mpsearch.core.hardware import Resource
from mpsearch.core.plan import Plan
from mpsearch.core.verification import Verification
from mpsearch.formulation import resource_of
from mpsearch.tasks import AbstractTask, Dataset
from mpsearch.tasks.drop import DropBound
from mpsearch.tracing import TracedModel
from mpsearch.verification.activation_peak import peak_rows
from mpsearch.verification.contest import Entry, Latency
from mpsearch.verification.promise import (
    agreement_row,
    bytes_row,
    drop_row,
    exact_row,
    latency_row,
    limit_of,
    loss_row,
    reported_rows,
    tail_row,
)
from mpsearch.verification.quality import measure_quality, reference_outputs


def prove(
    entry: Entry,
    *,
    plan: Plan,
    traced: TracedModel,
    task: AbstractTask,
    device: str,
    test: Dataset | None,
    bound: DropBound | None = None,
) -> tuple[Verification, ...]:
    """Return one row per quantity of a plan that was built and measured.

    Args:
        entry: The plan as it came out of the contest.
        plan: The same plan, with its budgets as limits.
        traced: The full-precision model.
        task: What counts as quality.
        device: Name of what it was measured on.
        test: Data that no decision was based on; it is run once, here.
        bound: What the plan may lose, if it was chosen by that.
    """
    rows: list[Verification] = []
    deployment, latency, quality = entry.deployment, entry.latency, entry.quality
    assert deployment is not None
    assert quality is not None
    if deployment.weight_bytes is not None:
        limit = limit_of(plan.budgets, "weight_bytes")
        measured = deployment.weight_bytes
        rows.append(bytes_row(plan, measured=measured, limit=limit, device=device))
    if latency is not None:
        rows += _latency_rows(plan, latencies={Resource.LATENCY_NS: latency}, device=device)
        others = {
            name: other
            for place, (name, other) in enumerate(entry.each.items())
            # The first is `latency` already, unless a budget calls it by its name.
            if place or name in {resource_of(budget) for budget in plan.budgets}
        }
        rows += _latency_rows(plan, latencies=others, device=device)
    rows += peak_rows(deployment, device=device)
    rows += _counted_rows(plan, known=[row.quantity for row in rows], device=device)
    if deployment.agreement is not None:
        rows.append(agreement_row(deployment.agreement, device=device))
    rows.append(loss_row(plan, quality=quality, device=device, part="validation data"))
    if bound is not None:
        part = "validation data"
        rows.append(drop_row(quality, bound=bound, device=device, part=part, is_certified=True))
    rows += reported_rows(quality, device=device, part="validation data")
    if test is not None:
        final = measure_quality(
            deployment.forward,
            task=task,
            data=test,
            reference=reference_outputs(traced, task=task, data=test),
        )
        part = "test data"
        rows.append(loss_row(plan, quality=final, device=device, part=part))
        if bound is not None:
            rows.append(drop_row(final, bound=bound, device=device, part=part, is_certified=False))
        rows += reported_rows(final, device=device, part=part)
    return tuple(rows)


def _latency_rows(
    plan: Plan, *, latencies: Mapping[str, Latency], device: str
) -> list[Verification]:
    """List the median and the 99th percentile of each workload."""
    rows = []
    for name, latency in latencies.items():
        rows.append(latency_row(plan, latency=latency, device=device, name=name))
        if latency.p99_ns is not None:
            rows.append(tail_row(plan, latency=latency, device=device, name=name))
    return rows


def _counted_rows(plan: Plan, *, known: Sequence[str], device: str) -> list[Verification]:
    """List budgets on what is counted, not measured: their amount is exact."""
    return [
        exact_row(plan, budget=budget, device=device)
        for budget in plan.budgets
        if budget.name not in known
    ]
