"""The folder of tables that `measure` and `search` write and the planning commands read."""

from pathlib import Path

from mpsearch.core.files import load_table
from mpsearch.core.tables import CostTable, SensitivityTable
from mpsearch.errors import DataError


def read_tables(folder: Path) -> tuple[SensitivityTable, tuple[CostTable, ...]]:
    """Return the sensitivity table and every cost table of a folder.

    Raises:
        DataError: A table is missing or damaged.
    """
    costs = sorted(folder.glob("costs-*.npz"))
    if not costs:
        raise DataError(
            f"Folder {str(folder)!r} holds no costs-*.npz. Expected what `mpsearch measure` or "
            "`mpsearch search` writes. Check the path, or measure first."
        )
    sensitivity = load_table(folder / "sensitivity.npz", SensitivityTable)
    return sensitivity, tuple(load_table(path, CostTable) for path in costs)
