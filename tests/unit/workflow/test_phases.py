"""Phases add up to the time that passed."""

import time

import pytest

from mpsearch.core.progress import ProgressEvent, tracked
from mpsearch.workflow.phases import PhaseClock


def test_phases_add_up_and_events_are_passed_on() -> None:
    seen: list[ProgressEvent] = []
    clock = PhaseClock(progress=seen.append)
    start = time.monotonic()
    for phase in ("a", "b", "a"):
        for _ in tracked(range(2), phase, total=2, progress=clock.report):
            time.sleep(0.005)
    phases = clock.phases()
    assert sum(phases.values()) == pytest.approx(time.monotonic() - start, abs=0.01)
    assert list(phases) == ["start", "a", "b"]
    assert phases["a"] > phases["b"] > 0
    assert len(seen) == 9
