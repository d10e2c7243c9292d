"""From a model to files for another device, and from its table to a plan for it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from mpsearch.cli.app import app
from mpsearch.core.files import save_table
from mpsearch.core.tables import SensitivityTable
from mpsearch.errors import DataError, FormatError
from mpsearch.workflow.snippets import read_snippets, snippets


def _model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(32, 64), nn.Tanh(), nn.Linear(64, 32)).eval()


def _example() -> list[torch.Tensor]:
    return [torch.zeros(4, 32)]


def test_a_plan_is_solved_for_a_device_that_was_never_here(tmp_path: Path) -> None:
    count = snippets(
        _model(), folder=tmp_path / "files", runtime="onnxruntime", formats=("w8",),
        example=_example(),
    )  # fmt: skip
    assert count == 4
    script = tmp_path / "files" / "time_snippets.py"
    subprocess.run([sys.executable, str(script), "--seconds", "0.05"], check=True)
    tables = tmp_path / "tables"
    cost = read_snippets(
        _model(), table=tmp_path / "files" / "table.csv", folder=tables, example=_example()
    )
    assert cost.formats == ("fp32", "w8")
    loss = np.array([[0.0, 1.0], [0.0, 2.0]])
    save_table(
        SensitivityTable(
            layers=cost.layers, formats=cost.formats, loss=loss, stderr=loss * 0,
            metric="m", unit="u",
        ),
        tables / "sensitivity.npz",
    )  # fmt: skip
    done = CliRunner().invoke(app, ["solve", str(tables), "--budget", "weight_bytes=70%"])
    assert done.exit_code == 0, done.output


def test_the_command_writes_and_reads_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n\n\ndef make():\n    return nn.Sequential(nn.Linear(16, 16))\n"
    )
    np.savez(tmp_path / "x.npz", input=np.zeros((2, 16), dtype=np.float32))
    monkeypatch.chdir(tmp_path)
    given = ["snippets", "--model-from", "mine:make", "--example", "x.npz", "--format", "w8"]
    done = CliRunner().invoke(app, [*given, "--output", "files", "--json"])
    assert done.exit_code == 0, done.output
    assert '"snippets": 2' in done.output
    (tmp_path / "table.csv").write_text(
        "# device: a board\nlayer,format,latency_ns\n0,fp32,200\n0,w8,100\n"
    )
    read = [*given, "--output", "tables", "--lut", "table.csv", "--json"]
    assert CliRunner().invoke(app, [*read, "--device-name", "a board"]).exit_code == 0
    wrong = CliRunner().invoke(app, [*read, "--device-name", "another"])
    assert wrong.exit_code == DataError.exit_code
    assert "is of device 'a board'" in wrong.output


def test_an_unknown_base_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="fp64"):
        snippets(_model(), folder=tmp_path, base="fp64", example=_example())
