"""Timing on a clock that tests move by hand."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest

from mpsearch.core.progress import ProgressEvent
from mpsearch.cost.timing import CoreState, time_together
from mpsearch.errors import MeasurementError


@dataclass(kw_only=True)
class HandClock:
    """A clock that only moves when work is done; `slow` makes all work slower."""

    now: float = 0.0
    slow: float = 1.0
    tick: float = 1e-7  # between two readings
    paused: float = 0.0

    def __call__(self) -> float:
        self.now += self.tick * self.slow
        return self.now

    def work(self, seconds: float) -> None:
        self.now += seconds * self.slow

    def pause(self, seconds: float) -> None:
        """Let another program run."""
        self.now += seconds
        self.paused += seconds

    def processor(self) -> float:
        return self.now - self.paused


def _state(clock: HandClock) -> CoreState:
    return CoreState(clock=clock, processor_clock=clock.processor)


@dataclass(kw_only=True)
class Work:
    """An executable that takes a set time; `cold` inferences after another one take longer."""

    clock: HandClock
    seconds: float
    runs: int = 0
    trouble: Callable[[int], float] = field(default=lambda _: 1.0)

    def infer(self) -> None:
        self.runs += 1
        self.clock.work(self.seconds * self.trouble(self.runs))


def _generator() -> np.random.Generator:
    return np.random.default_rng(0)


def test_a_steady_machine_gives_exact_medians() -> None:
    clock = HandClock()
    works = [Work(clock=clock, seconds=s) for s in (0.001, 0.002, 0.04)]
    timings = time_together(works, generator=_generator(), state=_state(clock))
    assert timings.seconds == pytest.approx([0.001, 0.002, 0.04], rel=1e-3)
    assert timings.rounds == 4
    assert timings.repeatability < 1e-6
    assert timings.contended == 0


def test_a_slot_lasts_at_least_25_ms_and_three_inferences() -> None:
    clock = HandClock()
    short, long = Work(clock=clock, seconds=0.001), Work(clock=clock, seconds=0.1)
    timings = time_together([short, long], generator=_generator(), state=_state(clock))
    assert short.runs == 25 * timings.rounds
    assert long.runs == 3 * timings.rounds


def test_the_cold_first_third_of_a_slot_is_dropped() -> None:
    clock = HandClock()
    # Every slot is 6 inferences; the first two run on cold weights, others differ a little.
    factors = [5.0, 5.0, 1.0, 1.1, 1.2, 1.1]
    work = Work(clock=clock, seconds=0.01, trouble=lambda run: factors[(run - 1) % 6])
    timings = time_together(
        [work], generator=_generator(), state=_state(clock), slot_seconds=0.1435
    )
    assert timings.seconds == pytest.approx([0.011], rel=1e-3)


def test_slots_in_a_slow_state_of_the_core_are_repeated() -> None:
    clock = HandClock()

    def trouble(run: int) -> float:
        # The core is at half its speed for inferences 30 to 41 of each 100.
        clock.slow = 2.0 if 30 <= run % 100 < 42 else 1.0
        return 1.0

    work = Work(clock=clock, seconds=0.001, trouble=trouble)
    state = _state(clock)
    state.slowdown()
    timings = time_together([work], generator=_generator(), state=state)
    assert timings.seconds == pytest.approx([0.001], rel=1e-2)
    assert timings.contended == 0
    assert work.runs > 25 * timings.rounds


def test_the_time_of_programs_that_interrupt_an_inference_does_not_count() -> None:
    clock = HandClock()
    state = _state(clock)

    class Interrupted:
        runs = 0

        def infer(self) -> None:
            self.runs += 1
            clock.work(0.004)
            if self.runs % 5 != 0:
                clock.pause(0.003)

    timings = time_together([Interrupted()], generator=_generator(), state=state)
    assert timings.seconds == pytest.approx([0.004], rel=1e-3)


def test_a_core_that_stays_slow_is_said_to_be_contended_and_still_ends() -> None:
    clock = HandClock()
    state = _state(clock)
    state.slowdown()
    clock.slow = 2.0
    work = Work(clock=clock, seconds=0.001)
    timings = time_together([work], generator=_generator(), state=state)
    assert timings.contended == 1.0
    assert work.runs <= 3 * timings.rounds * 25


def test_slots_that_the_core_spoiled_do_not_count_where_there_are_three_others() -> None:
    clock = HandClock()

    def trouble(run: int) -> float:
        # From the 5th slot to the 19th nothing helps: the core stays at half its speed.
        clock.slow = 2.0 if 100 <= run < 700 else 1.0
        return 1.0

    work = Work(clock=clock, seconds=0.001, trouble=trouble)
    timings = time_together(
        [work],
        generator=_generator(),
        state=_state(clock),
        relative_error=1e-12,
        time_limit_seconds=1.3,
    )
    assert timings.seconds == pytest.approx([0.001], rel=1e-3)
    assert timings.contended > 0


def test_where_the_core_spoils_all_slots_the_fastest_count() -> None:
    clock = HandClock()
    state = _state(clock)
    state.slowdown()
    clock.slow = 2.0
    factors = [1.0, 1.3, 1.6]
    # A slot is tried three times with three inferences each.
    work = Work(clock=clock, seconds=0.02, trouble=lambda run: factors[(run - 1) // 9 % 3])
    timings = time_together(
        [work],
        generator=_generator(),
        state=state,
        relative_error=1e-12,
        time_limit_seconds=5.0,
    )
    assert timings.rounds >= 9
    assert timings.contended == 1.0
    assert timings.seconds == pytest.approx([0.04], rel=1e-3)


def test_rounds_go_on_until_the_standard_error_is_small_or_time_is_up() -> None:
    clock = HandClock()
    noise = np.random.default_rng(1)
    factors = 1 + 0.1 * noise.standard_normal(100_000)
    work = Work(clock=clock, seconds=0.01, trouble=lambda run: float(factors[run // 3]))

    def timed(relative_error: float, limit: float) -> tuple[int, float]:
        timings = time_together(
            [work],
            generator=_generator(),
            state=_state(clock),
            relative_error=relative_error,
            time_limit_seconds=limit,
        )
        return timings.rounds, float(timings.stderr[0] / timings.seconds[0])

    loose, strict = timed(0.05, 100.0), timed(0.01, 100.0)
    assert strict[0] > loose[0]
    assert loose[1] <= 0.05
    assert strict[1] <= 0.01
    stopped = timed(1e-9, 1.0)
    assert 4 <= stopped[0] <= 1.0 / 0.02


def test_a_round_in_which_all_is_slow_moves_no_executable() -> None:
    clock = HandClock()
    slow_round = np.array([1.0, 1.0, 1.4, 1.0, 1.3, 1.2, 1.0, 1.5] * 10)

    def trouble(run: int) -> float:
        return float(slow_round[(run - 1) // 3])

    works = [Work(clock=clock, seconds=s, trouble=trouble) for s in (0.01, 0.02, 0.03)]
    timings = time_together(
        works,
        generator=_generator(),
        state=_state(clock),
        relative_error=1e-12,
        time_limit_seconds=1.0,
    )
    assert timings.seconds / timings.seconds[0] == pytest.approx([1, 2, 3], rel=1e-5)
    assert timings.repeatability < 1e-5


def test_repeatability_is_the_spread_of_timing_twice() -> None:
    clock = HandClock()
    noise = np.random.default_rng(2)
    relative = 0.02

    def noisy() -> Work:
        factors = 1 + relative * noise.standard_normal(10_000)
        # One factor per slot of 3 inferences, so that slots are independent.
        return Work(clock=clock, seconds=0.01, trouble=lambda run: float(factors[(run - 1) // 3]))

    works = [noisy() for _ in range(200)]
    timings = time_together(
        works,
        generator=_generator(),
        state=_state(clock),
        relative_error=1e-9,
        time_limit_seconds=200 * 0.03 * 16,
    )
    spread = np.std(timings.seconds / 0.01 - 1)
    # Two measurements differ by the root of two of the spread of one; 200 works give 7 %.
    assert timings.repeatability == pytest.approx(np.sqrt(2) * spread, rel=0.18)
    assert np.mean(timings.stderr / timings.seconds) == pytest.approx(spread, rel=0.25)


def test_executables_take_turns() -> None:
    clock = HandClock()
    order: list[str] = []

    @dataclass
    class Named:
        name: str

        def infer(self) -> None:
            if not order or order[-1] != self.name:
                order.append(self.name)
            clock.work(0.01)

    time_together([Named(name) for name in "abc"], generator=_generator(), state=_state(clock))
    # Runs of one name are its slots; where a round ends as the next starts they merge.
    assert len(order) >= 4 * 3 - 3
    assert len({tuple(order[i : i + 3]) for i in range(0, 9, 3)}) > 1


def test_progress_ends_at_its_total() -> None:
    clock = HandClock()
    seen: list[ProgressEvent] = []
    time_together(
        [Work(clock=clock, seconds=0.01)],
        generator=_generator(),
        state=_state(clock),
        progress=seen.append,
    )
    assert seen[-1].done == seen[-1].total == 4
    assert seen[-1].seconds_left == 0


def test_nothing_to_time_takes_no_time() -> None:
    assert time_together([], generator=_generator()).rounds == 0


def test_a_clock_that_stands_still_is_an_error() -> None:
    clock = HandClock(tick=0.0)

    class Jump:
        runs = 0

        def infer(self) -> None:
            self.runs += 1
            if self.runs % 9 == 0:
                clock.work(1.0)

    with pytest.raises(MeasurementError, match=r"Expected a positive time"):
        time_together([Jump()], generator=_generator(), state=_state(clock))
