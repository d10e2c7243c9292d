"""Write the report of a stored result again, without measuring and without torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, final

from pydantic import TypeAdapter, ValidationError

from mpsearch.core.files import load_plan, load_table, to_json, write_atomically
from mpsearch.core.graph import LayerGraph
from mpsearch.core.tables import CostTable, SensitivityTable
from mpsearch.core.verification import Verification
from mpsearch.errors import DataError
from mpsearch.report import TriedPlan, write_report
from mpsearch.workflow.solve import FrontPoint

SUMMARY: Final = "result.json"


@final
@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a result holds besides its plan and tables.

    `tried` holds every plan that was built, the winner first; `phases` are seconds; `trace`
    is every plan that a round of the search verified; `flips` how likely each layer would
    get another format were the sensitivities measured again.
    """

    verification: tuple[Verification, ...]
    tried: tuple[TriedPlan, ...]
    front: tuple[FrontPoint, ...]
    graph: LayerGraph
    phases: Mapping[str, float]
    notes: tuple[str, ...]
    trace: tuple[Mapping[str, float | int | str | bool | None], ...] = ()
    flips: Mapping[str, float] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write `result.json` into a folder."""
        write_atomically(folder / SUMMARY, to_json(self).encode())


def report(folder: Path, path: Path | None = None) -> Path:
    """Write the HTML report of a folder that a search wrote, and return where it is.

    Raises:
        PlanError: There is no readable plan in the folder.
        DataError: The summary or a table is missing or damaged.
    """
    target = path or folder / "report.html"
    plan = load_plan(folder / "plan.json")
    summary = load_summary(folder)
    write_report(
        target,
        plan=plan,
        sensitivity=load_table(folder / "sensitivity.npz", SensitivityTable),
        costs=[load_table(each, CostTable) for each in sorted(folder.glob("costs-*.npz"))],
        verification=summary.verification,
        tried=summary.tried,
        front=summary.front,
        graph=summary.graph,
        phases=summary.phases,
        notes=summary.notes,
    )
    return target


def load_summary(folder: Path) -> Summary:
    """Read what a search wrote beside its plan and tables.

    Raises:
        DataError: The file is missing or damaged.
    """
    path = folder / SUMMARY
    try:
        return TypeAdapter(Summary).validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise DataError(
            f"Result {str(path)!r} cannot be read: {error}. Expected the file that "
            "`mpsearch search` wrote beside its plan. Check the folder, or search again."
        ) from error
