"""The exact solver of our own: best prices, reduced-cost fixing, the core enumerated."""

import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import ClassVar, final

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from mpsearch.core.problem import Problem
from mpsearch.errors import UnsupportedFeatureError
from mpsearch.solvers.abstract import AbstractSolver, Feature, features_of
from mpsearch.solvers.clock import TimeUpError, check
from mpsearch.solvers.compiled import compiled
from mpsearch.solvers.core import ROOM, best_mix
from mpsearch.solvers.lattice_bound import LatticeBound, lattice_bound
from mpsearch.solvers.proposal import Proposal
from mpsearch.solvers.relaxation import Relaxation, relaxed
from mpsearch.solvers.relaxation_loops import settle
from mpsearch.solvers.sharing import joined

# Work grows as exp(sqrt(threshold)), so early thresholds cost little beside the last.
_FIRST_CLASSES = 12
_GROWTH = ((2_000, 2.0), (50_000, 1.5), (1 << 62, 1.25))
# Where the halves outgrow the memory, samples of so many blocks still find good answers.
_SAMPLED_CLASSES = (6, 10, 16, 20, 24, 32, 48, 64)
# A sample starts from a base settled among so many blocks.
_LEAST_SAMPLED = 1e-7
_SLOWER = 6.0
_SETTLED = 32768
# So many bases are tried, each from so many blocks further on.
_TURNS, _QUICK_TURNS, _SKIPPED, _EMPHASIS = 16, 8, 11, 1e3
# Beyond so many classes raising the threshold step by step is hopeless: sample first.
_MOST_CLASSES = 512
_TINY, _LITTLE, _MEDIUM = (min(ROOM, 1 << bits) for bits in (12, 15, 18))
# A look at all losses and costs takes about this long per cost.
_SECONDS_OF_LATTICE = 1e-7
# Below this a bound that spans one is met to rounding.
_ROUNDING = 1e-13


@final
@dataclass(frozen=True, kw_only=True)
class LagrangianCore(AbstractSolver):
    """Raise a threshold on the excess over the Lagrangian bound until the best answer is below.

    Any choice costs the bound, plus the reduced costs of its deviations from the relaxed
    choice, plus the worth of the slack it leaves. All that stay below a threshold are
    enumerated in two halves, equal weights merged, and joined. The first found is the best;
    an empty join raises the bound by the threshold. Memory is the limit, not the answer:
    where the halves outgrow it, the best answer so far is returned with its bound.
    """

    name: ClassVar[str] = "lagrangian_core"
    supports: ClassVar[frozenset[Feature]] = frozenset({Feature.SEVERAL_LIMITS, Feature.SHARING})

    def _propose(self, problem: Problem, *, deadline: float) -> Proposal:
        if Feature.SHARING in features_of(problem):
            whole = joined(problem)
            if whole is None:
                raise UnsupportedFeatureError(
                    "Blocks that share costs have too many choices together. Expected few that "
                    "hang together for solver 'lagrangian_core'. Use solver='auto'."
                )
            return whole.proposal(self._propose(whole.problem, deadline=deadline))
        relaxation = relaxed(problem, deadline=deadline)
        return search_core(relaxation, gap=self.gap, deadline=deadline).proposal(problem)


@final
@dataclass(frozen=True, kw_only=True)
class CoreResult:
    """The best choice of a core search; its loss exceeds the bound by `excess`.

    Nothing with an excess below `proven` keeps the limits. `was_stopped` says that time or
    memory ended the search, `has_lattice` that sums of losses were found to lie on one.
    """

    relaxation: Relaxation
    choice: Int[ndarray, " D"] | None
    excess: float
    proven: float
    was_stopped: bool
    has_lattice: bool

    def proposal(self, problem: Problem) -> Proposal:
        """Return the result as a claim about the problem."""
        relaxation = self.relaxation
        least = float(np.where(problem.mask, problem.loss, np.inf).min(axis=1).sum())
        proven = min(self.proven, self.excess)
        return Proposal(
            choice=self.choice,
            bound=least + relaxation.unit * (relaxation.bound + proven - _ROUNDING),
            multipliers=relaxation.multipliers,
            is_infeasible=self.choice is None and not self.was_stopped,
            was_stopped=self.was_stopped,
        )


def search_core(
    relaxation: Relaxation, *, gap: float, deadline: float, expects_lattice: bool = False
) -> CoreResult:
    """Return the best choice near the bound of a relaxation, and how far that is proven.

    A similar problem tells whether to expect that sums of losses lie on a lattice.
    """
    best = _Best(relaxation, gap=gap)
    if relaxation.is_refuted:
        return best.result(was_stopped=False)
    best.offer(relaxation.feasible)
    with suppress(TimeUpError):
        _search(best, deadline=deadline, expects_lattice=expects_lattice)
    return best.result(was_stopped=not best.is_proven)


def _search(best: "_Best", *, deadline: float, expects_lattice: bool) -> None:
    """Close the gap between the best choice and what is proven.

    Little room first; where it runs out, samples of the core give a good answer, which
    narrows what the full room has to hold.
    """
    threshold = _first_threshold(best.relaxation)
    if not expects_lattice:
        threshold = _deepen(best, threshold=threshold, room=_TINY, deadline=deadline)
    best.look_for_lattice(deadline=deadline)
    if best.has_lattice:
        for turn in range(_QUICK_TURNS):
            _sample(best, threshold=threshold, room=_LITTLE, deadline=deadline, turn=turn)
    threshold = _deepen(best, threshold=threshold, room=_LITTLE, deadline=deadline)
    for turn in range(1 + len(best.relaxation.price)):
        _sample(best, threshold=threshold, room=_LITTLE, deadline=deadline, turn=turn)
    threshold = _deepen(best, threshold=threshold, room=ROOM, deadline=deadline)
    for turn in range(_TURNS):
        _sample(best, threshold=threshold, room=_MEDIUM, deadline=deadline, turn=turn)


def _deepen(best: "_Best", *, threshold: float, room: int, deadline: float) -> float:
    """Raise the threshold until the best answer is proven, the room or the time runs out."""
    relaxation = best.relaxation
    taken = 0.0
    while not best.is_proven:
        # The next threshold takes longer than the last; one that would overrun is not begun.
        if time.monotonic() + _SLOWER * taken > deadline:
            return threshold
        start = time.monotonic()
        threshold = min(threshold, best.excess, best.greatest)
        if room <= _LITTLE and np.count_nonzero(relaxation.nearest <= threshold) > _MOST_CLASSES:
            return threshold
        window = min(best.excess, 2 * threshold)
        mix = best_mix(relaxation, threshold=threshold, window=window, room=room, deadline=deadline)
        best.offer(mix.choice)
        if not mix.is_complete:
            return threshold
        best.raise_proven(threshold)
        taken = time.monotonic() - start
        threshold *= next(growth for states, growth in _GROWTH if mix.states < states)
    return threshold


def _sample(best: "_Best", *, threshold: float, room: int, deadline: float, turn: int = 0) -> None:
    """Seek a better choice with ever dearer deviations, of ever more blocks while room lasts.

    Each turn starts from another base.
    """
    if best.is_proven:
        return
    check(deadline)
    relaxation = _with_little_slack(best.relaxation, turn=turn)
    # An excess of this size is a proof by itself.
    least = max(best.enough / 2, best.proven, _LEAST_SAMPLED * abs(relaxation.bound))
    threshold = max(threshold, least)
    is_last = False
    while not is_last:
        is_last = threshold >= min(best.excess, best.greatest)
        for classes in _SAMPLED_CLASSES:
            mix = best_mix(
                relaxation,
                threshold=min(threshold, best.excess, best.greatest),
                window=min(best.excess, 2 * threshold),
                most_classes=classes,
                room=room,
                deadline=deadline,
            )
            if best.offer(mix.choice):
                return
            if mix.states >= room or mix.is_complete:
                break
        threshold *= 4


def _with_little_slack(relaxation: Relaxation, *, turn: int) -> Relaxation:
    """Return the relaxation around a base that spends nearly all of each budget.

    The cheapest deviation of each of the most ambiguous blocks is taken for good where it
    brings the slack nearer to zero; these blocks deviate no further. Later turns skip blocks,
    and weigh one budget more, in turn: sums may rise in large steps in one and small in others.
    """
    skipped = turn * _SKIPPED
    blocks = np.argsort(relaxation.nearest, kind="stable")[skipped : skipped + _SETTLED]
    choice, nearest = relaxation.choice.copy(), relaxation.nearest.copy()
    rows = np.arange(len(blocks))
    cost = relaxation.cost[:, blocks]
    reduced = relaxation.loss[blocks] + np.tensordot(relaxation.price, cost, axes=1)
    reduced[rows, choice[blocks]] = np.inf
    format_ = np.argmin(reduced, axis=1)
    more = np.ascontiguousarray((cost[:, rows, format_] - cost[:, rows, choice[blocks]]).T)
    # Squares: where one budget is short and another is left, moves that trade help.
    weight = (relaxation.price / relaxation.price.max(initial=1e-300)) ** 2
    if turn:
        weight[turn % len(weight)] *= _EMPHASIS
    slack = relaxation.slack.copy()
    taken = np.zeros(len(blocks), dtype=bool)
    compiled(settle)(more, weight, slack, taken)
    choice[blocks[taken]], nearest[blocks[taken]] = format_[taken], np.inf
    return replace(relaxation, choice=choice, slack=slack, nearest=nearest)


@final
class _Best:
    """The best choice so far, and the threshold below which there is no better."""

    def __init__(self, relaxation: Relaxation, *, gap: float) -> None:
        self.relaxation = relaxation
        self.choice: Int[ndarray, " D"] | None = None
        self.excess = np.inf
        self.proven = 0.0
        # No choice exceeds the bound by more.
        self.greatest = relaxation.greatest - relaxation.bound + 1e-9
        self._gap = gap
        self._lattice: LatticeBound | None = None

    def look_for_lattice(self, *, deadline: float) -> None:
        """Raise what is proven to the least excess that sums of losses and costs can have."""
        if not self.is_proven:
            check(deadline, ahead=_SECONDS_OF_LATTICE * self.relaxation.cost.size)
            self._lattice = lattice_bound(self.relaxation)
            self.raise_proven(self.proven)

    @property
    def has_lattice(self) -> bool:
        """Whether sums of losses are on a lattice, so that a search may meet the bound."""
        return self._lattice is not None and self._lattice.unit > 0

    def raise_proven(self, threshold: float) -> None:
        """Say that nothing below a threshold keeps the limits."""
        self.proven = threshold if self._lattice is None else self._lattice.least(threshold)

    def offer(self, choice: Int[ndarray, " D"] | None) -> bool:
        """Keep the choice if it is better; return whether that is proof enough."""
        if choice is not None:
            excess = max(self.relaxation.excess(choice), 0.0)
            if excess < self.excess:
                self.choice, self.excess = choice, excess
        return self.is_proven

    @property
    def is_proven(self) -> bool:
        """Whether nothing is left to find: no better choice, or none at all."""
        if self.choice is None:
            return self.proven >= self.greatest or self.relaxation.is_refuted
        return self.excess - self.proven <= self.enough

    @property
    def enough(self) -> float:
        """Return the excess over what is proven that closes the gap asked for."""
        span = self.relaxation.bound + (self.excess if self.choice is not None else 0.0)
        # A tenth of the gap is kept back for rounding.
        return max(0.9 * self._gap * span, 10 * _ROUNDING)

    def result(self, *, was_stopped: bool) -> CoreResult:
        return CoreResult(
            relaxation=self.relaxation,
            choice=self.choice,
            excess=self.excess,
            proven=self.proven,
            was_stopped=was_stopped,
            has_lattice=self.has_lattice,
        )


def _first_threshold(relaxation: Relaxation) -> float:
    """Return a threshold that lets in a few classes."""
    nearest: Float[ndarray, " D"] = relaxation.nearest
    place = min(_FIRST_CLASSES, len(nearest)) - 1
    found = float(np.partition(nearest, place)[place])
    return max(found, 1e-12) if np.isfinite(found) else relaxation.greatest + 1e-12
