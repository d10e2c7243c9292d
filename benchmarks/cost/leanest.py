"""From lean to safe: the first plan of a row of budgets whose drop on validation data holds.

A drop holds a bound with one standard error to spare, since test data will differ by as much.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Final, final

import numpy as np
import torch

import mpsearch
from benchmarks.cost.subjects import Part, Subject
from mpsearch.errors import InfeasibleBudgetError
from mpsearch.execution import run
from mpsearch.search import Judged
from mpsearch.workflow.search import SearchResult

FASTEST: Final = tuple({"latency": f"{share}% of fastest"} for share in (100, 105, 115, 130, 160))


@final
@dataclass(frozen=True, kw_only=True)
class Request:
    """What is searched: a model at a batch in a runtime, under budgets from lean to safe.

    Each of the budgets is searched with one way to find ranges after the other.
    """

    subject: Subject
    samples: int = 1
    runtime: str = "openvino"
    budgets: Sequence[Mapping[str, str]] = FASTEST
    ranges: Sequence[str] = ("mse",)
    formats: Sequence[str] | None = None


@final
@dataclass(frozen=True, kw_only=True)
class Step:
    """The plan that a search returned for budgets, and what it loses on validation data.

    `stderr` is that of the drop, from what each piece of the data loses.
    """

    budgets: Mapping[str, str]
    ranges: str
    result: SearchResult
    drop: float
    stderr: float

    def holds(self, bound: float) -> bool:
        """Return whether the drop is at most `bound` with one standard error to spare."""
        return self.drop + self.stderr <= bound

    @property
    def winner(self) -> Judged:
        """Return the plan as it was built and measured."""
        return self.result.tried[0]


@final
@dataclass(kw_only=True)
class Leanest:
    """The steps of one request, searched as far as a bound asks for, and kept.

    Test data is looked at only for what `within` settled on.
    """

    request: Request
    folder: Path
    effort: float
    steps: list[Step] = field(default_factory=list)
    full: dict[Part, float] = field(default_factory=dict)
    by_piece: list[float] = field(default_factory=list)
    searched: int = 0

    def within(self, bound: float) -> Step:
        """Return the leanest step that holds `bound` on validation data, else the safest.

        Budgets that no plan keeps are passed over.
        """
        ways = list(product(self.request.budgets, self.request.ranges))
        for budgets, ranges in ways[self.searched :]:
            if any(step.holds(bound) for step in self.steps):
                break
            self.searched += 1
            with suppress(InfeasibleBudgetError):
                self.steps.append(self._step(budgets, ranges=ranges))
        return next((step for step in self.steps if step.holds(bound)), self.steps[-1])

    def drop(self, judged: Judged, *, part: Part) -> float:
        """Return what a plan loses as deployed."""
        deployment = judged.entry.deployment
        assert deployment is not None
        subject = self.request.subject
        return self.full_score(part) - subject.score(deployment.forward, subject.parts[part])

    def full_score(self, part: Part) -> float:
        """Return the measure at full precision."""
        if part not in self.full:
            subject = self.request.subject
            traced = subject.traced()
            with torch.no_grad():
                self.full[part] = subject.score(
                    lambda batch: run(traced, batch), subject.parts[part]
                )
        return self.full[part]

    def tried(self) -> list[dict[str, object]]:
        """Return what each step was searched with beside what its plan lost on validation data."""
        return [
            {
                **step.budgets,
                "ranges": step.ranges,
                "drop_on_validation": step.drop,
                "stderr": step.stderr,
            }
            for step in self.steps
        ]

    def _step(self, budgets: Mapping[str, str], *, ranges: str) -> Step:
        request = self.request
        result = mpsearch.search(
            request.subject.model,
            request.subject.calibration,
            validation=request.subject.judging,
            budgets=dict(budgets),
            task=request.subject.task,
            runtime=request.runtime,
            formats=request.formats,
            ranges=ranges,
            workloads={"deployment": request.subject.workload(request.samples)},
            effort=self.effort,
            cache=self.folder / "cache",
        )
        return Step(
            budgets=budgets,
            ranges=ranges,
            result=result,
            drop=self.drop(result.tried[0], part="validation"),
            stderr=self._stderr(result.tried[0]),
        )

    def _stderr(self, judged: Judged) -> float:
        """Return the standard error of the drop on validation data, by pieces of it."""
        deployment, subject = judged.entry.deployment, self.request.subject
        assert deployment is not None
        pieces = subject.parts["validation"]
        if not self.by_piece:
            traced = subject.traced()
            with torch.no_grad():
                self.by_piece += [
                    subject.score(lambda batch: run(traced, batch), [piece]) for piece in pieces
                ]
        lost = [
            full - subject.score(deployment.forward, [piece])
            for full, piece in zip(self.by_piece, pieces, strict=True)
        ]
        return float(np.std(lost, ddof=1) / math.sqrt(len(lost)))
