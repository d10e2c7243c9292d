"""Tables and lines that a terminal shows of plans, proofs and files."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mpsearch.cli.words import quantity
from mpsearch.core.placement import ground_told
from mpsearch.core.plan import Plan
from mpsearch.core.verification import Verification

# The gap that solvers prove unless told otherwise.
_PROVEN: Final = 1e-6
# Units that a value is shown with; other units have a column of their own.
_SHORT_UNITS: Final = frozenset({"B", "ns", "bits", "BOPs"})


def table_of(*headers: str, rows: Sequence[Sequence[object]]) -> Table:
    """Return a plain table; cells are shown as they are, without markup."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for header in headers:
        table.add_column(header, overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    return table


def plan_lines(plan: Plan) -> Text:
    """Return a plan in a few lines: its formats, its budgets, how well it is proven."""
    counts = Counter(plan.assignment.values()).most_common()
    formats = ", ".join(f"{count} x {name}" for name, count in counts)
    lines = [
        f"{len(plan.assignment)} layers on {ground_told(plan.base, plan.placement)}: {formats}",
        *(
            f"budget {budget.name}={budget.text}: at most {quantity(budget.limit, budget.unit)}"
            + (f" ({budget.note})" if budget.note else "")
            for budget in plan.budgets
        ),
    ]
    if plan.gap is not None:
        lines.append(
            "proven optimal for the tables"
            if plan.gap <= _PROVEN
            else f"within {plan.gap:.2%} of the best possible for the tables"
        )
    return Text("\n".join([*lines, *([f"chosen: {plan.origin}"] if plan.origin else [])]))


def verification_table(rows: Sequence[Verification]) -> Table:
    """Return predicted beside measured."""
    return table_of(
        "quantity",
        "predicted",
        "measured",
        "tolerance",
        "limit",
        "",
        "unit",
        rows=[
            (
                row.quantity,
                *(
                    quantity(value, row.unit if row.unit in _SHORT_UNITS else "")
                    for value in (row.predicted, row.measured, row.tolerance, row.limit)
                ),
                "kept" if row.passed else "MISSED",
                "" if row.unit in _SHORT_UNITS else row.unit,
            )
            for row in rows
        ],
    )


def files_lines(files: Mapping[str, Path]) -> Text:
    """Return where the results are."""
    return Text("\n".join(f"wrote {path}" for path in files.values()))


def written(folder: Path) -> dict[str, Path]:
    """Return the files of a folder by name."""
    return {path.name: path for path in sorted(folder.iterdir()) if path.is_file()}


def notes_lines(notes: Sequence[str]) -> Text:
    """Return what a user should know about a result, a line each."""
    return Text("\n".join(notes))


def stacked(*parts: RenderableType) -> Group:
    """Return parts one below the other, with an empty line between."""
    filled = [part for part in parts if not (isinstance(part, Text) and not part)]
    spaced = [item for part in filled for item in (part, Text(""))]
    return Group(*spaced[:-1])
