"""The solver library stands alone."""

import subprocess
import sys


def test_importing_the_solvers_loads_no_torch() -> None:
    heavy = "{'torch', 'onnx', 'openvino'}"
    code = f"import sys, mpsearch.solvers; print(sorted({heavy} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
