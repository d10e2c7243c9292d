"""Tables of finished jobs, kept open: the next solve of a job reads no file."""

from functools import lru_cache
from pathlib import Path
from typing import Final, TypeAlias, final

from mpsearch.core.files import load_table
from mpsearch.core.tables import CostTable, SensitivityTable

Tables: TypeAlias = tuple[SensitivityTable, tuple[CostTable, ...]]

# A table of 560 layers takes about 100 kB; a few with thousands of layers still fit.
_KEPT: Final = 32


@final
class StoredTables:
    """Reads the tables in a job's result, which never changes."""

    def __init__(self) -> None:
        self._read = lru_cache(maxsize=_KEPT)(read_tables)

    def of(self, result: Path) -> Tables:
        """Return the tables of a result folder.

        Raises:
            DataError: A table is damaged.
        """
        return self._read(result)


def read_tables(folder: Path) -> Tables:
    """Return the sensitivity table and every cost table of a folder."""
    costs = tuple(load_table(path, CostTable) for path in sorted(folder.glob("costs-*.npz")))
    return load_table(folder / "sensitivity.npz", SensitivityTable), costs
