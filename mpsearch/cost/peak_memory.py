"""The peak memory of a first inference, in a fresh process.

ONNX Runtime's profile says what its arena held after each node. OpenVINO has no such statistic;
what the process grows by in its first pass is what activations and scratch space take, because
their pages are first touched there.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

import onnx

from mpsearch.core.files import plan_from_dict
from mpsearch.core.hardware import Workload
from mpsearch.core.plan import Plan
from mpsearch.cost.whole_plans import example_inputs
from mpsearch.errors import MeasurementError
from mpsearch.export.graph_edit import metadata
from mpsearch.export.qdq_onnx import PLAN_KEY
from mpsearch.runtimes import RUNTIMES

_STATUS: Final = Path("/proc/self/status")
_CLEAR: Final = Path("/proc/self/clear_refs")
_RESET_PEAK: Final = "5"  # of Linux: forget the largest size so far (proc(5))
_KIB: Final = 1024
_SECONDS: Final = 300.0
_SHOWN: Final = 400


def can_measure_peak() -> bool:
    """Return whether the system counts and resets the peak of a process: Linux does."""
    return _STATUS.exists() and os.access(_CLEAR, os.W_OK)


def measured_peak_bytes(model: onnx.ModelProto, *, workload: Workload, threads: int) -> int:
    """Return by how many bytes a fresh process grows, at most, in the model's first inference.

    Args:
        model: An exported plan, whose runtime and settings are used.
        workload: The shape of each input.
        threads: Threads of one inference.

    Raises:
        MeasurementError: The process fails, or the system does not count.
    """
    if not can_measure_peak():
        raise MeasurementError(
            "The peak memory of a process cannot be reset here. Expected Linux with a writable "
            f"{_CLEAR}. Measure on such a machine."
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(model.SerializeToString())
        ended = subprocess.run(  # noqa: S603 - our own module, on a file of ours
            [sys.executable, "-m", __name__, str(path), workload.name, str(threads)],
            capture_output=True, text=True, timeout=_SECONDS, check=False,
        )  # fmt: skip
    if ended.returncode != 0:
        raise MeasurementError(
            f"The process that measures peak memory ended with {ended.returncode}: "
            f"{ended.stderr.strip()[-_SHOWN:]!r}. Expected it to run the plan once. Try again "
            "with more memory free."
        )
    return int(ended.stdout)


def main() -> None:
    """Build the file named on the command line, run it once, and print the growth in bytes."""
    path, name, threads = sys.argv[1:]
    model = onnx.load_model_from_string(Path(path).read_bytes())
    plan = plan_from_dict(json.loads(metadata(model.metadata_props)[PLAN_KEY]), origin=path)
    workload = next(each for each in plan.workloads if each.name == name)
    grown = _growth(model, plan=plan, workload=workload, threads=int(threads))
    sys.stdout.write(f"{grown}\n")


def _growth(model: onnx.ModelProto, *, plan: Plan, workload: Workload, threads: int) -> int:
    inputs = example_inputs(model, workload)
    executable = RUNTIMES[plan.runtime].build(
        model, settings=plan.settings, threads=threads, workload=workload, profile=True
    )
    _CLEAR.write_text(_RESET_PEAK)
    before, code_before = _status_bytes("VmRSS"), _status_bytes("RssFile")
    outputs = executable.run(inputs)
    # The copies of outputs that we get are no part of deployment.
    copies = sum(array.nbytes for array in outputs.values())
    # Pages of the runtime's code are mapped files, and no memory of the plan's.
    code = _status_bytes("RssFile") - code_before
    grown = max(_status_bytes("VmHWM") - before - code - copies, 0)
    own = executable.own_peak_bytes()
    return grown if own is None else own


def _status_bytes(name: str) -> int:
    line = next(row for row in _STATUS.read_text().splitlines() if row.startswith(f"{name}:"))
    return int(line.split()[1]) * _KIB


if __name__ == "__main__":
    main()
