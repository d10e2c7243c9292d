"""Laws of progress on the terminal."""

import io

import pytest
from rich.console import Console

from mpsearch.cli.progress import ProgressBars
from mpsearch.core.progress import ProgressEvent, tracked


def console(*, terminal: bool) -> tuple[Console, io.StringIO]:
    text = io.StringIO()
    return Console(file=text, force_terminal=terminal, width=100), text


def test_a_log_gets_a_line_at_the_start_and_the_end_of_each_phase() -> None:
    screen, text = console(terminal=False)
    bars = ProgressBars(screen)
    with bars.drawing():
        bars(ProgressEvent(phase="measure [sensitivity]", done=0, total=50, seconds=0.0))
        for done in range(1, 51):
            bars(ProgressEvent(phase="measure [sensitivity]", done=done, total=50, seconds=83.0))
    first, last = text.getvalue().splitlines()
    assert first == "measure [sensitivity]: 0/50"
    assert last == "measure [sensitivity]: 50/50 in 1 min 23 s"


def test_a_terminal_gets_one_bar_per_phase_with_what_is_left() -> None:
    screen, text = console(terminal=True)
    bars = ProgressBars(screen)
    with bars.drawing():
        list(tracked(range(3), "read", total=3, progress=bars))
        list(tracked(range(4), "solve", total=4, progress=bars))
    shown = text.getvalue()
    assert "3/3" in shown
    assert "4/4" in shown


def test_work_that_breaks_off_leaves_the_terminal_usable() -> None:
    screen, _ = console(terminal=True)
    bars = ProgressBars(screen)
    with pytest.raises(ZeroDivisionError), bars.drawing():
        list(tracked((1 / left for left in (1, 0)), "read", total=2, progress=bars))
    assert not bars._bars.live.is_started
