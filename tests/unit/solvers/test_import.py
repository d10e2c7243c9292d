"""The solver library stands alone."""

import subprocess
import sys


def test_importing_the_solvers_loads_no_torch() -> None:
    heavy = "{'torch', 'onnx', 'openvino'}"
    code = f"import sys, mpsearch.solvers; print(sorted({heavy} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_solving_needs_no_torch() -> None:
    code = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "onnx", "openvino"}:
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
import numpy as np
from mpsearch.solvers import Problem, solve
problem = Problem(
    loss=np.array([[0.0, 1.0], [0.0, 3.0]]),
    cost=np.array([[[4, 1], [4, 1]]]),
    limit=np.array([5]),
)
print(*(solve(problem, name).termination for name in ("auto", "highs", "pulp")))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["optimal"] * 3
