"""Rounds of measuring around the best plan, solving near it, and keeping what is better."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, final

import numpy as np
from jaxtyping import Bool, Float64, Int
from numpy import ndarray

from mpsearch.core.cache import Cache
from mpsearch.core.formats import BASES
from mpsearch.core.progress import Progress
from mpsearch.formulation import Formulation
from mpsearch.search.descent import Descent
from mpsearch.search.output_sum import OutputSum
from mpsearch.search.true_loss import TrueLoss
from mpsearch.sensitivity.change_request import ChangeRequest
from mpsearch.sensitivity.output_changes import OutputChanges, measure_changes
from mpsearch.tracing import TracedModel

# Formats that a round tries: so many steps up and down from the plan's, in order of cost;
# fewer where that is all that can be paid for.
_STEPS: Final = (2, 1)
# Plans of a round that are verified: the best of all, and the best with few changes, since
# the prediction is exact for one and gets worse with each more.
_BEST: Final = 4
_BEST_OF_FEW: Final = 2
_FEW: Final = 3
# Walks from the candidates that promise most, and what each may score.
_WALKS: Final = 3
_SCORED: Final = 3000
# Predicting by whole tensors is dear: fewer walks and samples then.
_SCORED_SLOWLY: Final = 700
_SHARE_OF_SAMPLES: Final = 4
_QUICK_NUMBERS: Final = 50_000
# Whatever the allowance, so many candidates are verified.
_VERIFIED_AT_LEAST: Final = 3


@final
@dataclass(frozen=True, kw_only=True)
class Allowance:
    """What may be spent: forwards over the scoring data, and seconds if that is asked for."""

    forwards: float
    seconds: float = float("inf")


@final
@dataclass(frozen=True, kw_only=True)
class Step:
    """One verified plan: in which round, what proposed it, predicted and measured divergence.

    `forwards` were spent until then; round 0 verifies the candidates. `predicted` is None
    where nothing was kept to predict it from.
    """

    round: int
    origin: str
    predicted: float | None
    measured: float
    is_best: bool
    forwards: float


@final
@dataclass(frozen=True, kw_only=True)
class Refined:
    """Verified assignments, the best first, with how they came about.

    Losses are divergences with logits divided by `temperature`.
    """

    assignments: tuple[Mapping[str, str], ...]
    origins: tuple[str, ...]
    losses: tuple[float, ...]
    steps: tuple[Step, ...]
    stopped: str
    temperature: float = 1.0


def layer_forwards(traced: TracedModel) -> dict[str, float]:
    """Return what trying one format of each layer costs, in whole forwards."""
    macs = np.array([layer.macs for layer in traced.graph.layers], dtype=float)
    share = macs[::-1].cumsum()[::-1] / max(macs.sum(), 1.0)
    return dict(zip(traced.graph.names, share.tolist(), strict=True))


def pass_forwards(traced: TracedModel, pairs: Mapping[str, Sequence[str]]) -> float:
    """Return what trying every pair costs, in whole forwards: each runs from its layer on."""
    each = layer_forwards(traced)
    return 1.0 + float(sum(len(names) * each[layer] for layer, names in pairs.items()))


def without_base(assignment: Mapping[str, str]) -> dict[str, str]:
    """Return the assignment with fp32 for every base: a base loses the same in every plan."""
    return {layer: "fp32" if name in BASES else name for layer, name in assignment.items()}


@final
class Refinement:
    """One search under one problem; everything measured is in the cache, so it resumes.

    `truth` measures on data that no scoring has seen. `spent` are forwards that the
    candidates have cost already.
    """

    def __init__(
        self,
        formulation: Formulation,
        *,
        request: ChangeRequest,
        truth: TrueLoss,
        allowance: Allowance,
        cache: Cache | None,
        spent: float = 0.0,
        progress: Progress | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._formulation = formulation
        self._problem = formulation.problem
        self._request, self._truth, self._cache = request, truth, cache
        self._allowance, self._progress, self._clock = allowance, progress, clock
        self._start = clock()
        self._share = truth.samples / request.data.samples
        self._known: dict[tuple[int, ...], tuple[float, str]] = {}
        self._steps: list[Step] = []
        self._measuring = spent

    @property
    def forwards(self) -> float:
        """Return what was spent, from the cache or not, so that every run spends alike."""
        return self._measuring + self._truth.passes * self._share

    def run(
        self, candidates: Mapping[str, Int[ndarray, " D"]], *, changes: OutputChanges | None
    ) -> Refined:
        """Verify the candidates, then refine the best until nothing changes or all is spent.

        Args:
            candidates: Choices within the limits by what proposed them, at least one.
            changes: Those of full precision, where they were measured.
        """
        if changes is not None:
            self._measuring += pass_forwards(self._request.traced, changes.request.pairs)
        # The first candidate is verified in any case; how it does tells how to judge them all.
        self._truth.settle(self._assignment(next(iter(candidates.values()))))
        scorer = None if changes is None else self._scorer(changes.at(self._truth.temperature))
        self._verify(self._with_walks(candidates, scorer=scorer), scorer=scorer, round_=0)
        stopped, round_ = "", 0
        while not stopped:
            round_ += 1
            stopped = self._round(round_)
        ranked = sorted(self._known.items(), key=lambda item: (item[1][0], item[0]))
        return Refined(
            assignments=tuple(
                self._formulation.assignment(np.array(choice)) for choice, _ in ranked
            ),
            origins=tuple(origin for _, (_, origin) in ranked),
            losses=tuple(loss for _, (loss, _) in ranked),
            steps=tuple(self._steps),
            stopped=stopped,
            temperature=self._truth.temperature,
        )

    def _round(self, round_: int) -> str:
        """Measure around the best plan and try what follows; say why the search ends, or ''."""
        centre = np.array(self._best)
        if self._clock() - self._start > self._allowance.seconds:
            return "the allowance of seconds is spent"
        near = self._affordable(centre)
        if near is None:
            return "the allowance of forwards is spent"
        pairs = self._pairs(near, centre=centre)
        around = replace(
            self._request,
            pairs=pairs,
            around=self._assignment(centre),
            temperature=self._truth.temperature,
        )
        changes = measure_changes(
            around, cache=self._cache, progress=self._progress, phase=f"refine, round {round_}"
        )
        self._measuring += pass_forwards(self._request.traced, pairs)
        scorer = self._scorer(changes)
        descent = Descent(self._problem, scorer.walk, near=near)
        descent.walk(centre, evaluations=scorer.evaluations)
        found = {
            f"round {round_}, number {place}": choice
            for place, choice in enumerate(self._chosen(descent, centre=centre), start=1)
        }
        self._verify(found, scorer=scorer, round_=round_)
        return "a round changed nothing" if self._best == tuple(centre.tolist()) else ""

    def _verify(
        self,
        found: Mapping[str, Int[ndarray, " D"]],
        *,
        scorer: "_Scorer | None",
        round_: int,
    ) -> None:
        predicted: dict[str, float | None] = dict.fromkeys(found)
        if scorer is not None:
            values = scorer.full(list(found.values())).tolist()
            order = np.argsort(values, kind="stable").tolist()
            names = list(found)
            predicted = {names[place]: values[place] for place in order}
        for place, (origin, value) in enumerate(predicted.items()):
            is_over = self.forwards + self._share > self._allowance.forwards
            if is_over and (round_ > 0 or place >= _VERIFIED_AT_LEAST):
                break
            choice = tuple(found[origin].tolist())
            if choice in self._known:
                continue
            loss = self._truth.loss(self._assignment(found[origin]))
            self._known[choice] = (loss, origin)
            self._steps.append(
                Step(
                    round=round_,
                    origin=origin,
                    predicted=value,
                    measured=loss,
                    is_best=self._best == choice,
                    forwards=self.forwards,
                )
            )

    @property
    def _best(self) -> tuple[int, ...]:
        return min(self._known, key=lambda choice: (self._known[choice][0], choice))

    def _with_walks(
        self, candidates: Mapping[str, Int[ndarray, " D"]], *, scorer: "_Scorer | None"
    ) -> dict[str, Int[ndarray, " D"]]:
        """Add where walks in output space lead from the candidates that promise most."""
        if scorer is None:
            return dict(candidates)
        losses = scorer.full(list(candidates.values()))
        order = np.argsort(losses, kind="stable")[: scorer.walks]
        names = list(candidates)
        found = dict(candidates)
        for place in order.tolist():
            descent = Descent(self._problem, scorer.walk)
            end = descent.walk(candidates[names[place]], evaluations=scorer.evaluations)
            found[f"output-space walk from {names[place]}"] = end
        return found

    def _chosen(self, descent: Descent, *, centre: Int[ndarray, " D"]) -> list[Int[ndarray, " D"]]:
        """Return the best scored choices, and the best of those with few changes."""
        ranked = descent.best(len(descent.scored))
        few = [c for c in ranked if 0 < int((c != centre).sum()) < _FEW]
        both = [*ranked[:_BEST], *few[:_BEST_OF_FEW]]
        return list({tuple(c.tolist()): c for c in both if (c != centre).any()}.values())

    def _affordable(self, centre: Int[ndarray, " D"]) -> Bool[ndarray, "D F"] | None:
        """Return the widest neighbourhood that can be measured and verified, if any can."""
        tries = (_BEST + _BEST_OF_FEW) * self._share
        for steps in _STEPS:
            near = self._near(centre, steps=steps)
            pairs = self._pairs(near, centre=centre)
            ahead = pass_forwards(self._request.traced, pairs) + tries
            if any(pairs.values()) and self.forwards + ahead <= self._allowance.forwards:
                return near
        return None

    def _near(self, centre: Int[ndarray, " D"], *, steps: int) -> Bool[ndarray, "D F"]:
        """Return the formats within a few steps of the centre's, in order of cost."""
        problem = self._problem
        size = problem.cost.sum(axis=0, dtype=float)
        near = np.zeros(problem.mask.shape, dtype=bool)
        for block, chosen in enumerate(centre.tolist()):
            order = [f for f in np.argsort(size[block], kind="stable") if problem.mask[block, f]]
            place = order.index(chosen)
            near[block, order[max(0, place - steps) : place + steps + 1]] = True
        return near

    def _pairs(
        self, near: Bool[ndarray, "D F"], *, centre: Int[ndarray, " D"]
    ) -> dict[str, tuple[str, ...]]:
        formats = self._formulation.formats
        return {
            layer: tuple(
                "fp32" if formats[f] in BASES else formats[f]
                for f in np.flatnonzero(near[block])
                if f != centre[block]
            )
            for block, layers in enumerate(self._formulation.blocks)
            for layer in layers
        }

    def _assignment(self, choice: Int[ndarray, " D"]) -> dict[str, str]:
        return without_base(self._formulation.assignment(choice))

    def _scorer(self, changes: OutputChanges) -> "_Scorer":
        return _Scorer(changes, formulation=self._formulation)


@final
class _Scorer:
    """Predicts choices from changes: all samples for a ranking, fewer for walks if that is slow."""

    def __init__(self, changes: OutputChanges, *, formulation: Formulation) -> None:
        self._formulation = formulation
        self._full = OutputSum(changes)
        is_quick = self._full.numbers <= _QUICK_NUMBERS
        fewer = max(1, self._full.samples // _SHARE_OF_SAMPLES)
        self._quick = self._full if is_quick else OutputSum(changes, samples=fewer)
        self.walks = _WALKS if is_quick else 1
        self.evaluations = _SCORED if is_quick else _SCORED_SLOWLY

    def full(self, choices: Sequence[Int[ndarray, " D"]]) -> Float64[ndarray, " N"]:
        return self._full.predicted(self._assignments(choices))

    def walk(self, choices: Sequence[Int[ndarray, " D"]]) -> Float64[ndarray, " N"]:
        return self._quick.predicted(self._assignments(choices))

    def _assignments(self, choices: Sequence[Int[ndarray, " D"]]) -> list[dict[str, str]]:
        return [without_base(self._formulation.assignment(each)) for each in choices]
