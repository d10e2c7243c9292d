"""Laws of working together: each gets its own outcome, and nobody works beside another."""

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event
from typing import Final

import pytest

from mpsearch.jobs.together import Together

_PATIENCE: Final = 20.0


class Counted:
    """Doubles numbers; the first call waits until it is let go, and says that it has begun."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.begun, self.let_go = Event(), Event()
        self.at_work = 0

    def __call__(self, numbers: Sequence[int]) -> list[int | Exception]:
        self.at_work += 1
        assert self.at_work == 1
        self.groups.append(list(numbers))
        self.begun.set()
        assert self.let_go.wait(_PATIENCE)
        self.at_work -= 1
        if 13 in numbers:
            raise OSError("full")
        return [ValueError(str(n)) if n < 0 else 2 * n for n in numbers]


def run_behind_one(work: Counted, numbers: list[int]) -> list[Future[int]]:
    """Ask for 0, then for numbers while it is worked on; return their futures once all ended."""
    together = Together(work)
    with ThreadPoolExecutor(len(numbers) + 1) as pool:
        futures = [pool.submit(together, 0)]
        assert work.begun.wait(_PATIENCE)
        futures += [pool.submit(together, n) for n in numbers]
        while len(together._waiting) < len(numbers):
            time.sleep(0.001)
        work.let_go.set()
    assert not together._waiting
    return futures


def test_each_gets_its_own_outcome_and_those_that_wait_are_done_at_once() -> None:
    work = Counted()
    futures = run_behind_one(work, list(range(1, 9)))
    assert [future.result() for future in futures] == [2 * n for n in range(9)]
    assert work.groups[0] == [0]
    assert len(work.groups) == 2
    assert sorted(work.groups[1]) == list(range(1, 9))


def test_an_exception_that_is_returned_is_raised_to_who_asked_alone() -> None:
    futures = run_behind_one(Counted(), [4, -5, 6])
    assert [futures[place].result() for place in (0, 1, 3)] == [0, 8, 12]
    with pytest.raises(ValueError, match="-5"):
        futures[2].result()


def test_an_exception_that_is_raised_is_raised_to_all_of_its_group_and_ends_with_it() -> None:
    work = Counted()
    first, *others = run_behind_one(work, [13, 4])
    assert first.result() == 0
    for future in others:
        with pytest.raises(OSError, match="full"):
            future.result()
    assert Together(work)(5) == 10


def test_many_threads_that_ask_again_and_again_all_come_to_an_end() -> None:
    work = Counted()
    work.let_go.set()
    together = Together(work)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(together, range(100, 1000)))
    assert found == [2 * n for n in range(100, 1000)]
    assert sorted(n for group in work.groups for n in group) == list(range(100, 1000))


def test_one_alone_waits_for_nobody() -> None:
    work = Counted()
    work.let_go.set()
    together = Together(work)
    assert [together(n) for n in (1, 2)] == [2, 4]
    assert work.groups == [[1], [2]]
