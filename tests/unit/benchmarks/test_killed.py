"""The trial of kills tells a process that resumes from one that begins again."""

import sys
from pathlib import Path

from benchmarks.killed import Trial

_ENTRIES = 12

# Stands for a measuring process: notes each entry, keeps it as a file, saves a table.
_SCRIPT = """
import sys, time
from pathlib import Path
import numpy as np
from mpsearch.core.files import save_table
from mpsearch.core.provenance import Provenance
from mpsearch.core.tables import SensitivityTable

cache, journal, table = map(Path, sys.argv[1:])
cache.mkdir(exist_ok=True)
keeps, noise = {keeps}, {noise}

def note(line):
    with journal.open("a") as file:
        file.write(line + "\\n")

for place in range({entries}):
    kept = cache / str(place)
    if not kept.exists():
        note(f"begin batch layer{{place}} w4")
        time.sleep(0.02)
        note(f"end batch layer{{place}} w4")
        if keeps:
            kept.touch()
values = np.full(({entries}, 1), 1.0)
values[0, 0] += noise * np.random.default_rng().random()
save_table(
    SensitivityTable(
        layers=tuple(f"layer{{place}}" for place in range({entries})),
        formats=("w4",),
        loss=values,
        stderr=values,
        metric="output_error",
        unit="squared output error per sample",
        samples=1,
        provenance=Provenance(model="", data="", seed=0, versions={{}}),
    ),
    table,
)
"""


def _trial(folder: Path, *, keeps: bool, noise: float = 0.0) -> Trial:
    script = _SCRIPT.format(keeps=keeps, noise=noise, entries=_ENTRIES)
    return Trial(command=(sys.executable, "-c", script), folder=folder)


def test_what_resumes_measures_at_most_one_entry_twice(tmp_path: Path) -> None:
    found = _trial(tmp_path, keeps=True).outcome(kills=2)
    assert found.entries == _ENTRIES
    assert len(found.twice) == 3
    assert max(found.twice) <= 1
    assert found.is_same


def test_what_begins_again_is_found_out(tmp_path: Path) -> None:
    assert max(_trial(tmp_path, keeps=False).outcome(kills=2).twice) > 1


def test_tables_that_differ_are_found_out(tmp_path: Path) -> None:
    assert not _trial(tmp_path, keeps=True, noise=1.0).outcome(kills=1).is_same
