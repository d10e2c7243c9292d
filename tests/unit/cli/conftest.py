"""A folder of small tables, and a way to run the command line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from mpsearch.cli.app import app
from mpsearch.core.files import save_table
from mpsearch.core.hardware import Device, Resource, Support
from mpsearch.core.tables import CostTable, SensitivityTable

LAYERS = ("embed", "block.0", "block.1")
FORMATS = ("fp32", "w8", "w4")
BYTES = np.array([[4000, 1000, 500]] * 3)


def sensitivity_table() -> SensitivityTable:
    loss = np.array([[0.0, 0.1, 1.0], [0.0, 0.2, 5.0], [0.0, 0.3, 2.0]])
    return SensitivityTable(
        layers=LAYERS,
        formats=FORMATS,
        loss=loss,
        stderr=loss / 10,
        metric="output_error",
        unit="squared output error",
    )


def cost_table() -> CostTable:
    return CostTable(
        layers=LAYERS,
        formats=FORMATS,
        base="fp32",
        placement="layer_inputs",
        amount={Resource.WEIGHT_BYTES: BYTES},
        constant={},
        support=((Support.NATIVE,) * 3,) * 3,
        device=Device(name="cpu", runtime="openvino", threads=1),
    )


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    """Write one sensitivity and one cost table of three layers and three formats."""
    folder = tmp_path / "tables"
    save_table(sensitivity_table(), folder / "sensitivity.npz")
    save_table(cost_table(), folder / "costs-fp32.npz")
    return folder


@pytest.fixture
def invoke() -> Callable[..., Result]:
    """Return what runs the command line with some arguments."""
    return lambda *arguments: CliRunner().invoke(app, [str(item) for item in arguments])


@pytest.fixture
def answer(invoke: Callable[..., Result]) -> Callable[..., Any]:
    """Return what runs a command with `--json` and reads its whole stdout as one object."""

    def run(*arguments: object) -> object:
        result = invoke(*arguments, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    return run
