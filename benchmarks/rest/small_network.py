"""An ONNX file of a few layers: a job of it has every phase, and is read in no time."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import numpy as np
from onnx import helper, save_model

from mpsearch.testing.onnx_files import onnx_model

_WIDTH: Final = 16
_SAMPLES: Final = 48
# As long as those of real transformers.
_NAMES: Final = tuple(
    f"encoder.layer.{block}.{part}"
    for block in range(2)
    for part in ("attention.self.query", "attention.output.dense", "intermediate.dense")
)


@final
@dataclass(frozen=True, kw_only=True)
class SmallNetwork:
    """A folder with `net.onnx`, six linear layers with bends between them, and samples for it."""

    folder: Path

    def write(self) -> "SmallNetwork":
        """Write network and samples, the same on every run."""
        random = np.random.default_rng(0)
        scale = np.sqrt(2 / _WIDTH)
        weights = {
            f"{name}.weight": (scale * random.standard_normal((_WIDTH, _WIDTH))).astype(np.float32)
            for name in _NAMES
        }
        nodes, last = [], "x"
        for name in _NAMES:
            product = helper.make_node("MatMul", [last, f"{name}.weight"], [name], name=name)
            last = f"{name}.bent"
            nodes += [product, helper.make_node("Relu", [name], [last])]
        network = onnx_model(
            nodes, inputs={"x": ["batch", _WIDTH]}, outputs=[last], weights=weights
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        save_model(network, self.folder / "net.onnx")
        samples = random.standard_normal((_SAMPLES, _WIDTH)).astype(np.float32)
        np.savez(self.folder / "points.npz", x=samples)
        return self

    def request(self, *, runtime: str = "simulation") -> dict[str, Any]:
        """Return a job that searches a plan for it."""
        return {
            "model": {"root": "r", "path": "net.onnx"},
            "calibration": {"root": "r", "path": "points.npz"},
            "budgets": {"weight_bytes": "30%"},
            "runtime": runtime,
            "task": "classification",
        }
