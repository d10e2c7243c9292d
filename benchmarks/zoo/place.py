"""Where the real models lie, and what the referee says of a plan."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

SHARED: Final = Path(__file__).parents[3] / "shared"
ZOO: Final = SHARED / "zoo"
_REFEREE: Final = SHARED / "referee" / "score_plan.py"


def is_present() -> bool:
    """Return whether the models and the referee are there."""
    return ZOO.is_dir() and _REFEREE.is_file()


def referee_scores(model: str, bits: Mapping[str, int], *, split: str = "test") -> dict[str, Any]:
    """Return what the referee measures for bits per layer, symmetric weights only.

    `kl` is the divergence from full precision, the cosine distance for embeddings. The test
    split is for plans that are written down and final.

    Raises:
        subprocess.CalledProcessError: The plan does not name every layer of the model.
    """
    with tempfile.TemporaryDirectory() as folder:
        plan = Path(folder) / "plan.json"
        plan.write_text(json.dumps(dict(bits)), encoding="utf-8")
        command = [sys.executable, str(_REFEREE), "--model", model, "--zoo", str(ZOO)]
        command += ["--plan", str(plan), "--split", split]
        answer = subprocess.run(command, check=True, capture_output=True, text=True)
    scores: dict[str, Any] = json.loads(answer.stdout)
    return scores
