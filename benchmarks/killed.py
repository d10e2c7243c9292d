"""kill -9 at random moments of a process that measures: what is lost, what is measured twice."""

import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Final, final
from unittest.mock import patch

import numpy as np

from mpsearch.core.files import load_table
from mpsearch.core.tables import SensitivityTable

# Where the exact metrics measure one layer in one format over one batch.
_MEASURES: Final = "mpsearch.sensitivity.exact_metric._Batch._measured"
_HANGS_SECONDS: Final = 1200
_LOOK_SECONDS: Final = 0.005
_LONGEST_DELAY_SECONDS: Final = 0.1


@contextmanager
def noting(journal: Path) -> Iterator[None]:
    """Write a line before and after each entry that an exact metric measures meanwhile."""
    from mpsearch.sensitivity import exact_metric

    measures = exact_metric._Batch._measured  # noqa: SLF001  # what is counted lies inside

    def noted(batch: Any, layer: str, name: str) -> Any:  # noqa: ANN401, PLR0917  # stands for a method
        key = f"{batch._placed.key} {layer} {name}"  # noqa: SLF001  # as above
        _write(journal, f"begin {key}")
        found = measures(batch, layer, name)
        _write(journal, f"end {key}")
        return found

    with patch(_MEASURES, noted):
        yield


@final
@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How many entries each run measured again, how many there are, and what came out."""

    twice: tuple[float, ...]
    entries: int
    whole: SensitivityTable
    resumed: SensitivityTable

    @property
    def is_same(self) -> bool:
        """Return whether both tables hold the same bits."""
        return all(
            np.array_equal(getattr(self.whole, array), getattr(self.resumed, array), equal_nan=True)
            for array in ("loss", "stderr")
        )


@final
@dataclass(frozen=True, kw_only=True)
class Trial:
    """A command that takes the places of cache, journal and table, and is killed and resumed.

    It keeps what it measures in the cache, measures under `noting`, and saves the table.
    """

    command: Sequence[str]
    folder: Path

    def outcome(self, *, kills: int, seed: int = 0) -> Outcome:
        """Run it once whole, and once killed so often at moments spread over its work."""
        random = np.random.default_rng(seed)
        self._finish("whole")
        total = len(self._keys("whole", event="end"))
        twice = []
        known: list[str] = []
        for done in sorted(random.choice(total, size=kills, replace=False).tolist()):
            delay = random.uniform(0, _LONGEST_DELAY_SECONDS)
            self._kill_after(done, delay=delay)
            twice.append(self._repeats(known))
            known = self._keys("killed", event="begin")
        self._finish("killed")
        twice.append(self._repeats(known))
        whole, resumed = (
            load_table(self.folder / f"{run}.npz", SensitivityTable) for run in ("whole", "killed")
        )
        return Outcome(twice=tuple(twice), entries=total, whole=whole, resumed=resumed)

    def _places(self, run: str) -> list[str]:
        return [str(self.folder / name) for name in (run, f"{run}.journal", f"{run}.npz")]

    def _finish(self, run: str) -> None:
        subprocess.run([*self.command, *self._places(run)], check=True)

    def _kill_after(self, entries: int, *, delay: float) -> None:
        """Start, wait until so many entries are done in all, wait a little more, and kill."""
        with subprocess.Popen([*self.command, *self._places("killed")]) as process:
            deadline = monotonic() + _HANGS_SECONDS
            while len(self._keys("killed", event="end")) < entries and process.poll() is None:
                assert monotonic() < deadline, "the pass hangs"
                sleep(_LOOK_SECONDS)
            sleep(delay)
            process.kill()

    def _keys(self, run: str, *, event: str) -> list[str]:
        journal = self.folder / f"{run}.journal"
        if not journal.exists():
            return []
        lines = (line.split(maxsplit=1) for line in journal.read_text().splitlines())
        return [key for kind, key in lines if kind == event]

    def _repeats(self, known: Sequence[str]) -> float:
        """Return how many of the entries that were known begun have been begun again since."""
        begun: Mapping[str, int] = Counter(self._keys("killed", event="begin")) - Counter(known)
        return float(sum(1 for key in begun if key in set(known)))


def _write(journal: Path, line: str) -> None:
    with journal.open("a") as file:
        file.write(line + "\n")
