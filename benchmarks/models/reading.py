"""How long a file takes to read, and how much memory."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from benchmarks.bar import Bar, judged
from benchmarks.models.targets import TARGETS
from mpsearch.tracing import load_onnx, trace_onnx

_WIDTH = 16
_NODES = 500
_SMALL_BYTES, _FULL_BYTES = 128 * 2**20, 2**30
_MATRICES = 16  # of which a large file is made
# Most memory while reading, less what Python and its libraries take by themselves. Linux only.
_PROGRAM = """
import sys
from pathlib import Path
from mpsearch.tracing import load_onnx
def kilobytes(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))
load_onnx(Path(sys.argv[1]))
Path("/proc/self/clear_refs").write_text("5")  # begins the highest value anew
before = kilobytes("VmRSS")
loaded = load_onnx(Path(sys.argv[2]))
print((kilobytes("VmHWM") - before) * 1024)
"""


def reading(*, small: bool) -> Iterator[Bar]:
    """Measure time and memory of reading."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        deep = chain_of_layers(folder / "deep.onnx", layers=_NODES // 2, width=_WIDTH)
        example = {"x": torch.zeros(2, _WIDTH)}
        trace_onnx(load_onnx(deep), example)  # the first call loads torch's own code
        started = time.process_time()
        loaded = load_onnx(deep)
        read = time.process_time()
        trace_onnx(loaded, example)
        traced = time.process_time()
        yield _bar("reading 500 nodes", read - started)
        yield _bar("reading and tracing 500 nodes", traced - started)
        yield _memory(folder, small=deep, size=_SMALL_BYTES if small else _FULL_BYTES)


def _bar(name: str, value: float) -> Bar:
    return judged(name, [value], target=TARGETS[name])


def _memory(folder: Path, *, small: Path, size: int) -> Bar:
    width = int((size / _MATRICES / 4) ** 0.5)
    large = chain_of_layers(folder / "large.onnx", layers=_MATRICES, width=width)
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(small), str(large)],
        capture_output=True,
        text=True,
        check=True,
    )
    bytes_ = large.stat().st_size
    name = "memory of reading a large file"
    return judged(
        name, [int(done.stdout) / bytes_], target=TARGETS[name], extra={"file_bytes": bytes_}
    )


def chain_of_layers(path: Path, *, layers: int, width: int) -> Path:
    """Write a chain of linear layers, each with a nonlinearity behind it."""
    generator = np.random.default_rng(0)
    nodes, weights, name = [], [], "x"
    for place in range(layers):
        weight = generator.standard_normal((width, width), dtype=np.float32) / width**0.5
        weights.append(numpy_helper.from_array(weight, f"w{place}"))
        nodes.append(helper.make_node("MatMul", [name, f"w{place}"], [f"p{place}"], f"/{place}"))
        nodes.append(helper.make_node("Relu", [f"p{place}"], [f"h{place}"], f"/{place}/relu"))
        name = f"h{place}"
    sizes: list[int | str | None] = ["batch", width]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, sizes)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes)],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, path)
    return path
