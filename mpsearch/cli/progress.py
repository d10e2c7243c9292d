"""Progress of long work on the terminal: one bar per phase, or plain lines where there is none."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from mpsearch.cli.words import duration
from mpsearch.core.progress import ProgressEvent

# A log file gets a line per phase, and one in between so often that a reader sees it lives.
_SECONDS_BETWEEN_LINES = 15.0


@final
class ProgressBars:
    """Show each phase's events on `console`; call it with events, within `drawing()`."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}
        self._last_line = 0.0

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """Draw while the block runs, and leave the bars as they then are."""
        with self._bars if self._console.is_terminal else nullcontext():
            yield

    def __call__(self, event: ProgressEvent) -> None:
        """Show one event."""
        if self._console.is_terminal:
            self._draw(event)
        else:
            self._write(event)

    def _draw(self, event: ProgressEvent) -> None:
        if event.phase not in self._tasks:
            self._tasks[event.phase] = self._bars.add_task(event.phase, total=None, left="")
        self._bars.update(
            self._tasks[event.phase], completed=event.done, total=event.total, left=_left(event)
        )

    def _write(self, event: ProgressEvent) -> None:
        now = time.monotonic()
        is_edge = event.done in (0, event.total)
        if is_edge or now - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = now
            self._console.print(
                f"{event.phase}: {event.done}/{event.total} {_left(event)}".rstrip(),
                markup=False,
                highlight=False,
                soft_wrap=True,
            )


def _left(event: ProgressEvent) -> str:
    if event.done >= event.total:
        return f"in {duration(event.seconds)}"
    return "" if event.seconds_left is None else f"{duration(event.seconds_left)} left"
