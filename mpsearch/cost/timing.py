"""Time several executables against each other, in slots that take turns on a screened core."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, final, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from numpy.random import Generator

from mpsearch.core.progress import Progress, ProgressEvent, silent
from mpsearch.errors import MeasurementError

Clock = Callable[[], float]

# Shorter slots measure cold weights: 2.13 ms instead of 1.61 ms on MiniLM.
SLOT_SECONDS = 0.025
_SMALLEST_SLOT = 3  # inferences: one is dropped, two are left
_DROPPED_SHARE = 1 / 3  # what a slot spends on warming its weights up
_SMALLEST_ROUNDS = 4  # the least that can be halved and still shows a spread
_TOLERATED_STATE = 1.1  # a core slower than this by the probe is in another state
# An inference that used the processor for a smaller share of its time than others of the same
# executable was pushed aside by another program, whose time is then taken out.
_UNDISTURBED = 0.95
_TRIES = 3  # per slot; on a machine that stays busy a bad slot is better than none
# Small enough that BLAS keeps it on one thread, so that it shows the state of this core.
_PROBE_SIZE = 64
_PROBE_REPEATS = 15
_MEDIAN_FACTOR = math.sqrt(math.pi / 2)  # standard error of a median over that of a mean
_FEWEST_SLOTS = 3  # per executable; the fastest ones where the core spoils all of them
_POLISHES = 5  # medians settle after two or three
_TAIL = 99  # percent
_MAD_FACTOR = 1.4826  # median absolute deviation to standard deviation, for normal noise


@runtime_checkable
class Timeable(Protocol):
    """Anything that can be run again and again on inputs that stay bound."""

    def infer(self) -> object:
        """Run once."""


@final
@dataclass(frozen=True, kw_only=True)
class Timings:
    """Median and 99th percentile of the seconds of N executables, over `rounds`.

    The standard error is that of the median against the other executables: what slows all
    is taken out.

    `repeatability` is the relative standard deviation of timing the same executable twice
    for as long as here, from the odd rounds against the even ones. `contended` is the share
    of slots that stayed in a slow state of the core however often they were repeated.
    """

    seconds: Float[ndarray, " N"]
    stderr: Float[ndarray, " N"]
    tail: Float[ndarray, " N"]
    rounds: int
    repeatability: float
    contended: float


@final
class CoreState:
    """How fast the core is now, as the time of a small matrix product.

    The best time seen so far stands for the core undisturbed; it is kept over several
    calls of `time_together`, so that a slow start does not lower the standard.
    """

    def __init__(
        self, *, clock: Clock = time.perf_counter, processor_clock: Clock = time.process_time
    ) -> None:
        self.clock = clock
        self.processor_clock = processor_clock
        self.best = math.inf
        self._matrix = np.eye(_PROBE_SIZE, dtype=np.float32)

    def slowdown(self) -> float:
        """Return how many times longer than at best a small matrix product takes now."""
        times = []
        for _ in range(_PROBE_REPEATS):
            start = self.clock()
            self._matrix @ self._matrix
            times.append(self.clock() - start)
        now = float(np.median(times))
        self.best = min(self.best, now)
        return now / self.best if self.best > 0 else 1.0


def time_together(
    executables: Sequence[Timeable],
    *,
    relative_error: float = 0.005,
    time_limit_seconds: float = 5.0,
    slot_seconds: float = SLOT_SECONDS,
    generator: Generator,
    state: CoreState | None = None,
    phase: str = "time",
    progress: Progress | None = None,
) -> Timings:
    """Return the median latency of each executable, timed in turns.

    In each round every executable gets one slot of at least `slot_seconds`, in a new random
    order; the first third of a slot is dropped, its median kept. Before and after a slot a
    small matrix product shows the state of the core: a slot 10 % off the best state is
    repeated, three times at most, and left out where an executable has three others.
    What a whole round was slower is taken out of all its slots.
    Rounds go on until the mean standard error is at most
    `relative_error` of the latency, or until the time limit; there are at least four.

    Raises:
        MeasurementError: A time is not positive: the clock does not resolve an inference.
    """
    if not executables:
        return Timings(
            seconds=np.zeros(0),
            stderr=np.zeros(0),
            tail=np.zeros(0),
            rounds=0,
            repeatability=0.0,
            contended=0.0,
        )
    state = CoreState() if state is None else state
    report = silent if progress is None else progress
    start = state.clock()
    slots = _Slots(count=len(executables))
    watched = [_Watched(executable) for executable in executables]
    is_enough = False
    while not is_enough:
        slots.begin_round()
        for place in generator.permutation(len(executables)):
            seconds, slowdown = _screened_slot(
                watched[place], slot_seconds=slot_seconds, state=state
            )
            slots.add(int(place), seconds=seconds, slowdown=slowdown)
        left = time_limit_seconds - (state.clock() - start)
        is_enough = _is_enough(slots, relative_error=relative_error, seconds_left=left)
        report(
            _event(phase, rounds=slots.rounds, limit=time_limit_seconds, left=left, last=is_enough)
        )
    return _timings(slots, tail=[each.tail() for each in watched])


@final
class _Slots:
    """Seconds and slowdown of the core of every slot, by round and executable."""

    def __init__(self, *, count: int) -> None:
        self.count = count
        self.seconds: list[list[float]] = []
        self.slowdown: list[list[float]] = []

    @property
    def rounds(self) -> int:
        return len(self.seconds)

    def begin_round(self) -> None:
        self.seconds.append([math.nan] * self.count)
        self.slowdown.append([math.inf] * self.count)

    def add(self, place: int, *, seconds: float, slowdown: float) -> None:
        self.seconds[-1][place] = seconds
        self.slowdown[-1][place] = slowdown

    def clean(self) -> Bool[ndarray, "rounds N"]:
        return np.array(self.slowdown) <= _TOLERATED_STATE

    def kept(self) -> Float[ndarray, "rounds N"]:
        """Return log seconds of clean slots, NaN in others.

        An executable with too few clean slots keeps its fastest ones: other work only ever
        adds time. On a machine with twice as many programs as cores, the fastest slots of
        18 MiniLM plans timed twice differed by 4 %, the medians of all slots by 45 %.
        """
        seconds, kept = np.array(self.seconds), self.clean()
        few = min(_FEWEST_SLOTS, len(seconds)) - 1
        spoiled = kept.sum(axis=0) <= few
        kept[:, spoiled] = (seconds <= np.sort(seconds, axis=0)[few])[:, spoiled]
        return np.where(kept, np.log(seconds), np.nan)


def _is_enough(slots: _Slots, *, relative_error: float, seconds_left: float) -> bool:
    if slots.rounds < _SMALLEST_ROUNDS:
        return False
    if seconds_left <= 0:
        return True
    if bool((slots.clean().sum(axis=0) < _FEWEST_SLOTS).any()):
        return False
    _, residual = _polished(slots.kept())
    return bool(np.mean(_stderr(residual)) <= relative_error)


def _screened_slot(
    watched: "_Watched", *, slot_seconds: float, state: CoreState
) -> tuple[float, float]:
    """Return the median of the slot in the best state of the core, and how slow that was."""
    best_slowdown, best_seconds = math.inf, math.nan
    for _ in range(_TRIES):
        before = state.slowdown()
        seconds = watched.slot(slot_seconds=slot_seconds, state=state)
        slowdown = max(before, state.slowdown())
        if slowdown < best_slowdown:
            best_slowdown, best_seconds = slowdown, seconds
        if best_slowdown <= _TOLERATED_STATE:
            break
    return best_seconds, best_slowdown


@final
class _Watched:
    """An executable, and the largest share of its time that it was seen to use the processor.

    With one thread the share is about one; with several it is how many are kept busy.
    """

    def __init__(self, executable: Timeable) -> None:
        self.executable = executable
        self.share = 0.0
        self.walls: list[float] = []

    def tail(self) -> float:
        """Return the 99th percentile of all inferences, those that were disturbed included."""
        return float(np.percentile(self.walls, _TAIL))

    def slot(self, *, slot_seconds: float, state: CoreState) -> float:
        """Return the median time of an inference over the slot, less its first third."""
        start = now = state.clock()
        times: list[tuple[float, float]] = []
        while now - start < slot_seconds or len(times) < _SMALLEST_SLOT:
            before, used_before = state.clock(), state.processor_clock()
            self.executable.infer()
            used, now = state.processor_clock() - used_before, state.clock()
            times.append((now - before, used))
        wall, used_times = np.array(times[int(len(times) * _DROPPED_SHARE) :]).T
        if wall.min() <= 0:
            raise MeasurementError(
                f"An inference took {wall.min()} s. Expected a positive time. "
                "Use a larger workload: the clock does not resolve this one."
            )
        self.walls.extend(wall.tolist())
        share = used_times / wall
        self.share = max(self.share, float(share.max()))
        disturbed = share < _UNDISTURBED * self.share
        own = np.where(disturbed & (used_times > 0), used_times / max(self.share, 1e-9), wall)
        return float(np.median(own))


def _timings(slots: _Slots, *, tail: Sequence[float]) -> Timings:
    effect, residual = _polished(slots.kept())
    seconds = np.exp(effect)
    halves = [_half_difference(column[np.isfinite(column)]) for column in residual.T]
    # Each half has twice the variance of the whole, so their difference has twice that of two
    # whole measurements.
    repeatability = math.sqrt(float(np.mean(np.square(halves))) / 2) * _spared(slots.count)
    return Timings(
        seconds=seconds,
        stderr=seconds * _stderr(residual),
        tail=np.array(tail),
        rounds=slots.rounds,
        repeatability=repeatability,
        contended=float(1 - slots.clean().mean()),
    )


def _half_difference(residual: Float[ndarray, " kept"]) -> float:
    return float(np.median(residual[0::2]) - np.median(residual[1::2]))


def _polished(
    logarithms: Float[ndarray, "rounds N"],
) -> tuple[Float[ndarray, " N"], Float[ndarray, "rounds N"]]:
    """Split log time into executable + round + residual by medians; NaN stands for no slot.

    A round in which the whole machine is slow then moves no executable: under other work,
    timing 18 MiniLM plans twice differed by 1.4 % instead of 3.0 %. Source: Tukey (1977),
    Exploratory Data Analysis, chapter 11 (median polish).
    """
    used = np.isfinite(logarithms).any(axis=1)
    rounds = np.zeros((len(logarithms), 1))
    effect = np.nanmedian(logarithms, axis=0)
    if logarithms.shape[1] > 1:  # one executable alone cannot tell a round from noise
        for _ in range(_POLISHES):
            rounds[used] = np.nanmedian(logarithms[used] - effect, axis=1, keepdims=True)
            rounds[used] -= np.median(rounds[used])
            effect = np.nanmedian(logarithms - rounds, axis=0)
    return effect, logarithms - rounds - effect


def _stderr(residual: Float[ndarray, "rounds N"]) -> Float[ndarray, " N"]:
    """Return the standard error of medians of log time, that is, relative to the time."""
    deviation = np.nanmedian(np.abs(residual), axis=0) * _spared(residual.shape[1])
    slots = np.isfinite(residual).sum(axis=0)
    result: Float[ndarray, " N"] = _MEDIAN_FACTOR * _MAD_FACTOR * deviation / np.sqrt(slots)
    return result


def _spared(executables: int) -> float:
    """Return how much larger noise is than what is left of it after taking out each round."""
    return math.sqrt(executables / (executables - 1)) if executables > 1 else 1.0


def _event(phase: str, *, rounds: int, limit: float, left: float, last: bool) -> ProgressEvent:
    """Report rounds done, of as many as the time limit allows: noise may ask for all of them."""
    spent = limit - left
    allowed = max(_SMALLEST_ROUNDS, math.ceil(rounds * limit / spent)) if spent > 0 else rounds
    total = rounds if last else max(allowed, rounds + 1)
    return ProgressEvent(
        phase=phase,
        done=rounds,
        total=total,
        seconds=spent,
        seconds_left=(total - rounds) * spent / rounds,
    )
