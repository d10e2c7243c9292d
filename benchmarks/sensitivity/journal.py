"""Plans are written down before the referee sees them, and what it says is written beside.

A run that was stopped takes both up: no plan is searched twice, none is scored twice.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias, final

import mpsearch
from benchmarks.sensitivity.plans import Written
from mpsearch.core.cache import content_hash

# The divergence on test data of a model with so many bits per layer.
Referee: TypeAlias = Callable[[str, Mapping[str, int]], float]


@final
class Journal:
    """One line per plan: what was asked for, of which source code, and the plan; then scores."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._source = _source()

    def written(self, make: Callable[[], Written], **asked: object) -> Written:
        """Return the plan that was written down for the same question, or make and write it."""
        question = {**asked, "source": self._source}
        for line in self._lines():
            if line["asked"] == question:
                return Written(**line["plan"])
        plan = make()
        self._write({"asked": question, "plan": asdict(plan)})
        return plan

    def scored(self, model: str, bits: Mapping[str, int], *, referee: Referee) -> float:
        """Return what the referee says of a plan, which it is asked once."""
        question = {"scored": model, "bits": dict(bits)}
        for line in self._lines():
            if line["asked"] == question:
                return float(line["score"])
        score = referee(model, bits)
        self._write({"asked": question, "score": score})
        return score

    def _write(self, line: Mapping[str, object]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as journal:
            journal.write(json.dumps(line) + "\n")

    def _lines(self) -> list[Mapping[str, Any]]:
        if not self._path.exists():
            return []
        return [json.loads(line) for line in self._path.read_text(encoding="utf-8").splitlines()]


def _source() -> str:
    """Hash what decides a plan: the package, and how the models are read and asked about."""
    here = Path(__file__).parent
    package = Path(mpsearch.__file__).parent
    files = [*package.rglob("*.py"), *(here.parent / "zoo").glob("*.py"), here / "plans.py"]
    return content_hash(*(path.read_text(encoding="utf-8") for path in sorted(files)))
