"""Snippets run with their runtime and NumPy alone, and their table is read back."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mpsearch.core.graph import LayerGraph
from mpsearch.core.hardware import Support
from mpsearch.cost.lut import read_lut
from mpsearch.cost.lut_table import cost_table_of
from mpsearch.cost.snippets import write_snippets
from mpsearch.errors import FormatError, UnsupportedFeatureError
from mpsearch.runtimes import RUNTIMES
from mpsearch.testing.small_onnx import small_layers

_GRAPH = LayerGraph(layers=small_layers(), edges=(), fingerprint="f")
# Says which modules besides the runtime and NumPy the script would find.
_ALONE = """
import importlib.abc, runpy, sys
class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("mpsearch", "torch", "onnx"):
            raise ImportError(f"{name} is not on the device")
sys.meta_path.insert(0, Refuse())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_a_device_without_mpsearch_fills_the_table(tmp_path: Path, runtime: str) -> None:
    formats = ("w8a8", "w8", "w4g128")
    count = write_snippets(_GRAPH, tmp_path, runtime=RUNTIMES[runtime], formats=formats)
    # Embeddings have no inputs to quantise, and groups are for linear layers alone.
    assert count == 3 * 4 - 3
    command = [sys.executable, "-c", _ALONE, str(tmp_path / "time_snippets.py")]
    subprocess.run([*command, "--seconds", "0.05", "--device", "a board"], check=True)
    lut = read_lut(tmp_path / "table.csv", device="a board")
    table = cost_table_of(lut, _GRAPH)
    assert table.formats == ("fp32", *formats)
    assert table.support[0] == (Support.NATIVE,) * 4
    assert table.support[1] == (Support.NATIVE, Support.NONE, Support.NATIVE, Support.NONE)
    offered = table.allowed
    assert (table.amount["latency_ns"][offered] > 0).all()


def test_a_snippet_that_does_not_open_gets_an_empty_row(tmp_path: Path) -> None:
    write_snippets(_GRAPH, tmp_path, runtime=RUNTIMES["onnxruntime"], formats=("w8a8",))
    manifest = json.loads((tmp_path / "snippets.json").read_text())
    broken = manifest["snippets"][1]
    (tmp_path / broken["file"]).write_bytes(b"no model")
    command = [sys.executable, str(tmp_path / "time_snippets.py"), "--seconds", "0.05"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert f"No kernel for {broken['signature']}" in done.stdout
    assert read_lut(tmp_path / "table.csv").amounts(broken["signature"], broken["format"]) == {}


def test_requests_that_no_device_can_serve_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedFeatureError, match="runs no files"):
        write_snippets(_GRAPH, tmp_path, runtime=RUNTIMES["simulation"], formats=("w8",))
    with pytest.raises(FormatError):
        write_snippets(_GRAPH, tmp_path, runtime=RUNTIMES["openvino"], formats=("w99",))
