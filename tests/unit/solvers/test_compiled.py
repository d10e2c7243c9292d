"""Without numba the same loops give the same answers; with it, nothing is compiled twice."""

import os
import subprocess
import sys
from pathlib import Path

from mpsearch.solvers import solve
from mpsearch.testing.solver_laws import separated_problem

_WITHOUT = """
import sys
sys.modules["numba"] = None
import importlib.util as util
find = util.find_spec
util.find_spec = lambda name, *rest: None if name == "numba" else find(name, *rest)
from mpsearch.solvers import compiled, solve
from mpsearch.testing.solver_laws import separated_problem
assert not compiled.HAS_NUMBA
for seed in range(3):
    found = solve(separated_problem(seed), "lagrangian_core")
    print(found.termination, *found.choice)
"""


def test_answers_are_the_same_without_numba() -> None:
    run = subprocess.run(
        [sys.executable, "-c", _WITHOUT], capture_output=True, text=True, check=True
    )
    lines = run.stdout.splitlines()
    for seed, line in enumerate(lines):
        word, *choice = line.split()
        assert word == "optimal"
        here = solve(separated_problem(seed)).choice
        assert here is not None
        assert here.tolist() == [int(pick) for pick in choice]
    assert len(lines) == 3


# A choice; of each loop, how often it came from disk; and how often it did not.
_TAKEN_OVER = """
import gc
from mpsearch.solvers import solve
from mpsearch.testing.solver_laws import separated_problem
print(*solve(separated_problem(0), "lagrangian_core").choice)
from numba.core.dispatcher import Dispatcher
made = [each for each in gc.get_objects() if isinstance(each, Dispatcher)]
ours = [each for each in made if each.__module__.startswith("mpsearch")]
print(*(sum(each.stats.cache_hits.values()) for each in ours))
print(*(sum(each.stats.cache_misses.values()) for each in ours))
"""


def test_machine_code_beside_the_source_serves_where_it_cannot_be_kept(tmp_path: Path) -> None:
    beside = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    choice, _, _ = told_by_loops(beside)
    again, hits, misses = told_by_loops({**beside, "NUMBA_CACHE_DIR": str(tmp_path)})
    assert again == choice
    assert sum(map(int, hits)) > 0
    assert sum(map(int, misses)) == 0
    # Nothing half is left, and what is there is not taken over again.
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert {path.suffix for path in kept} == {".nbi", ".nbc"}
    assert told_by_loops({**beside, "NUMBA_CACHE_DIR": str(tmp_path)})[0] == choice
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def told_by_loops(environment: dict[str, str]) -> list[list[str]]:
    """Return a choice, and how many of its loops came from disk and how many did not."""
    command = [sys.executable, "-c", _TAKEN_OVER]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return [line.split() for line in done.stdout.splitlines()]
