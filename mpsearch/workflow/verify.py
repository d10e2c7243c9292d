"""Build a stored plan again and measure whether it holds what it promises, here and now."""

from dataclasses import replace
from pathlib import Path

from mpsearch.core.plan import Plan
from mpsearch.core.progress import Progress
from mpsearch.core.verification import Verification
from mpsearch.errors import DeploymentError
from mpsearch.verification.contest import Contest
from mpsearch.verification.proof import prove
from mpsearch.verification.quality import reference_outputs
from mpsearch.workflow.export import check_model
from mpsearch.workflow.measure import runtime_named
from mpsearch.workflow.prepare import ModelSource, TaskSource, names_products, prepare
from mpsearch.workflow.reading import DataSource


def verify(
    model: ModelSource,
    plan: Plan,
    *,
    data: DataSource,
    task: TaskSource = "auto",
    threads: int = 1,
    seed: int = 0,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> tuple[Verification, ...]:
    """Return one row per quantity: promised, measured, and whether it held.

    On another device than the plan was made for, its forecast of latency is withdrawn: the
    row reports what was measured and says so.

    Args:
        model: The model that the plan was made for.
        plan: The plan.
        data: Data that the search has not used.
        task: See `mpsearch.search`.
        threads: Threads of the deployed model.
        seed: Of the order in which plans are timed.
        cache: Folder of measured values.
        progress: Called with each step of long work.

    Raises:
        PlanError: The plan belongs to another model.
        DeploymentError: The plan does not build here.
    """
    prepared = prepare(
        model,
        data,
        task=task,
        validation=data,
        test=None,
        runtime=plan.runtime,
        workloads={each.name: each.shapes for each in plan.workloads},
        cache=cache,
        progress=progress,
        has_products=names_products(plan),
    )
    check_model(plan, prepared.traced)
    contest = Contest(
        traced=prepared.traced,
        base=prepared.base,
        task=prepared.task,
        data=prepared.validation,
        reference=reference_outputs(prepared.traced, task=prepared.task, data=prepared.validation),
        threads=threads,
        seed=seed,
    )
    (entry,) = contest.hold([plan], progress=progress)
    if entry.broken:
        raise DeploymentError(entry.broken)
    device = runtime_named(plan.runtime).device(threads).name
    rows = prove(
        entry, plan=plan, traced=prepared.traced, task=prepared.task, device=device, test=None
    )
    made_on = plan.provenance.device
    return tuple(_withdrawn(row, made_on=made_on) if made_on != device else row for row in rows)


def _withdrawn(row: Verification, *, made_on: str) -> Verification:
    if row.quantity != "latency":
        return row
    return replace(
        row,
        predicted=None,
        tolerance=None,
        passed=row.limit is None or row.measured <= row.limit,
        note=f"the plan was made for {made_on or 'an unnamed device'}; its forecast is withdrawn",
    )
