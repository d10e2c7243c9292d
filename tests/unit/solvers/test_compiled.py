"""Without numba the same loops give the same answers."""

import subprocess
import sys

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
