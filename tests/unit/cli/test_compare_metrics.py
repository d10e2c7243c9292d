"""`compare-metrics` writes a table and a picture, and tells mistakes before it measures."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from typer.testing import Result

Invoke = Callable[..., Result]
METRICS = ("weight_error", "output_error", "output_probe")
MODEL = """
import torch
from torch import nn


def made() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
"""


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[object, ...]:
    """Write a user's model and data, and return the options that name them."""
    (tmp_path / "compared_model.py").write_text(MODEL)
    np.savez(
        tmp_path / "data.npz",
        input=np.random.default_rng(0).normal(size=(30, 6)).astype(np.float32),
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "compared_model", raising=False)
    return (
        *("--model-from", "compared_model:made", "--calibration", tmp_path / "data.npz"),
        *("--task", "classification", "--output", tmp_path / "out", "--cache", tmp_path / "cache"),
        *("--format", "w6", "--format", "w3", "--format", "w2"),
    )


def _asked(metrics: tuple[str, ...]) -> list[str]:
    return [word for metric in metrics for word in ("--metric", metric)]


def test_the_command_writes_the_table_and_the_picture(
    given: tuple[object, ...], invoke: Invoke, tmp_path: Path
) -> None:
    found = invoke("compare-metrics", *given, "--budget", "weight_bits=4", *_asked(METRICS))
    assert found.exit_code == 0, found.output
    for expected in ("rank agreement", "seconds", "verified", "found the best plan", *METRICS):
        assert expected in found.stdout
    numbers = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert [each["metric"] for each in numbers["results"]] == list(METRICS)
    assert all(each["measured"] > 0 and each["seconds"] > 0 for each in numbers["results"])
    assert np.diag(numbers["agreement"]).tolist() == [1.0] * 3
    page = (tmp_path / "out" / "metrics.html").read_text()
    picture = page[page.index("<svg") : page.index("</svg>") + len("</svg>")]
    drawn = ET.fromstring(picture)  # noqa: S314 - our own page, written just now
    tags = [element.tag.rpartition("}")[2] for element in drawn.iter()]
    assert tags.count("circle") == len(METRICS)
    _check_inside(drawn)


def _check_inside(drawn: ET.Element) -> None:
    """Every point lies in the picture, whatever the numbers."""
    left, top, width, height = map(float, drawn.attrib["viewBox"].split())
    for element in drawn.iter():
        if element.tag.rpartition("}")[2] == "circle":
            assert left <= float(element.attrib["cx"]) <= left + width
            assert top <= float(element.attrib["cy"]) <= top + height


def test_json_holds_the_same_comparison(
    given: tuple[object, ...], answer: Callable[..., Any], tmp_path: Path
) -> None:
    found = answer("compare-metrics", *given, "--budget", "weight_bits=4", *_asked(METRICS[:2]))
    kept = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert found["comparison"]["results"] == kept["results"]
    assert found["files"]["metrics.html"] == str(tmp_path / "out" / "metrics.html")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (("--budget", "weight_bits=4", "--metric", "guess"), "'guess' is unknown"),
        (("--budget", "weight_bits=4", *_asked(("weight_error",) * 2)), "name one twice"),
        (("--budget", "weight_bits"), "cannot be read"),
        (("--budget", "weight_bits=1"), "No plan keeps weight_bits"),
        (("--budget", "speed=4"), "speed"),
        (("--budget", "weight_bits=4", "--format", "w9"), "'w9' is unknown"),
        (("--budget", "weight_bits=4", "--fix", "nowhere.*=w3"), "nowhere"),
        (("--budget", "weight_bits=4", "--runtime", "abacus"), "'abacus' is unknown"),
        (("--budget", "weight_bits=4", "--ranges", "median"), "'median' is unknown"),
        (("--budget", "weight_bits=4", "--calibration", "none.npz"), "none.npz"),
        (("--budget", "weight_bits=4", "--metric", "loss_change"), "label"),
    ],
)
def test_a_mistake_is_one_clear_error_and_writes_nothing(
    given: tuple[object, ...],
    changes: tuple[str, ...],
    message: str,
    invoke: Invoke,
    tmp_path: Path,
) -> None:
    metrics = () if "--metric" in changes else _asked(METRICS[:1])
    found = invoke("compare-metrics", *given, *metrics, *changes)
    # No plan within the budget is an outcome of its own.
    assert found.exit_code == (3 if changes[1].endswith("=1") else 2), found.output
    assert message in found.stderr
    assert "Traceback" not in found.output
    assert not (tmp_path / "out").exists()
