"""Planning starts in milliseconds and installs without torch."""

import subprocess
import sys
from importlib.util import find_spec

import pytest

# Planning: what `pip install mpsearch` gives without an extra.
LIGHT = [
    "mpsearch",
    "mpsearch.errors",
    "mpsearch.core.files",
    "mpsearch.core.cache",
    "mpsearch.formulation",
    "mpsearch.solvers",
    "mpsearch.workflow",
    "mpsearch.workflow.solve",
    "mpsearch.cli.app",
    "mpsearch.__main__",
]
# These may read ONNX files and run them, but never through torch.
TORCH_FREE = [
    "mpsearch.quant",
    "mpsearch.export",
    "mpsearch.runtimes",
    "mpsearch.cost",
    "mpsearch.report",
]
HEAVY = ("torch", "transformers", "openvino", "onnx", "onnxruntime", "numba")
PROGRAM = """
import importlib, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise AssertionError(f"{name} was imported")
        return None
sys.meta_path.insert(0, Refuse())
importlib.import_module(sys.argv[1])
print(*(name for name in sys.argv[2:] if name in sys.modules))
"""


def exists(name: str) -> bool:
    parent = name.rpartition(".")[0]
    return (not parent or exists(parent)) and find_spec(name) is not None


def loaded_by(name: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, name, *HEAVY], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize("name", [name for name in LIGHT if exists(name)])
def test_importing_planning_loads_nothing_heavy(name: str) -> None:
    assert loaded_by(name) == set()


@pytest.mark.parametrize("name", [name for name in TORCH_FREE if exists(name)])
def test_importing_deployment_loads_no_torch(name: str) -> None:
    assert "torch" not in loaded_by(name)


def test_the_refusal_of_torch_works() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "torch"], capture_output=True, text=True, check=False
    )
    assert "torch was imported" in done.stderr
