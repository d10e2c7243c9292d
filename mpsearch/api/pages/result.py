"""All that a job has left, read once: plan, summary and tables."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, final

from mpsearch.api.service import Service
from mpsearch.api.stored_tables import read_tables
from mpsearch.core.files import load_plan
from mpsearch.core.hardware import Resource
from mpsearch.core.plan import Plan
from mpsearch.core.tables import CostTable, SensitivityTable
from mpsearch.errors import AbsentError, ConflictError, DataError, PlanError
from mpsearch.jobs.job import Job, JobState
from mpsearch.report.palette import Swatch, swatches
from mpsearch.workflow.report import Summary, load_summary

# A result of 560 layers takes a few megabytes.
_KEPT: Final = 16


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Result:
    """What a search found and measured; it never changes, and is read once, so it is itself.

    `varies` is the budget that its front moves: the one that was to be least, or else the first.
    """

    plan: Plan
    summary: Summary
    sensitivity: SensitivityTable
    costs: tuple[CostTable, ...]
    varies: str

    def cost_of(self, plan: Plan) -> CostTable | None:
        """Return the table of a plan's base and placement, None where there is none."""
        return cost_table(self.costs, base=plan.base, placement=plan.placement)

    @property
    def swatches(self) -> dict[str, Swatch]:
        """Return the colours of every format that a plan of these tables may have."""
        bases = (cost.base for cost in self.costs)
        return swatches([*self.sensitivity.formats, *bases, *self.plan.assignment.values()])


def cost_table(costs: tuple[CostTable, ...], *, base: str, placement: str) -> CostTable | None:
    """Return the table of a base and placement, None where there is none."""
    wanted = (base, placement)
    return next((cost for cost in costs if (cost.base, cost.placement) == wanted), None)


def result_of(job: Job, *, service: Service) -> Result:
    """Return the result of a job.

    Raises:
        ConflictError: It has none, or not yet.
        AbsentError: It cannot be shown.
    """
    if job.state is not JobState.SUCCEEDED:
        raise ConflictError(
            f"Job {job.id!r} is {job.state} and has no result. Expected one that succeeded. "
            f"{'Its error says why.' if job.is_done else 'Follow it until it is done.'}"
        )
    try:
        folder = service.settings.data.result(job.id)
        return _read(folder, minimised=_minimised(job.request))
    except (DataError, PlanError) as error:
        raise AbsentError(
            f"The result of job {job.id!r} cannot be shown. Expected what this version writes. "
            "Its files may still be downloaded; post the job again to see it."
        ) from error


def _minimised(request: Mapping[str, Any]) -> str | None:
    is_within_drop = request.get("max_drop") is not None
    return str(request.get("minimise", "latency")) if is_within_drop else None


@lru_cache(maxsize=_KEPT)
def _read(folder: Path, *, minimised: str | None) -> Result:
    # A runner that was turned against us must not make us show what it points to.
    if folder.is_symlink() or any(path.is_symlink() for path in folder.iterdir()):
        raise DataError(
            f"Result {str(folder)!r} holds a link. Expected files. Search again, and see why."
        )
    sensitivity, costs = read_tables(folder)
    plan = load_plan(folder / "plan.json")
    budgets = plan.budgets
    return Result(
        plan=plan,
        summary=load_summary(folder),
        sensitivity=sensitivity,
        costs=costs,
        varies=minimised or (budgets[0].name if budgets else str(Resource.WEIGHT_BYTES)),
    )
