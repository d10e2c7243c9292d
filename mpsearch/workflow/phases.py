"""Seconds by phase, read off the progress of the work itself."""

from time import monotonic
from typing import final

from mpsearch.core.progress import Progress, ProgressEvent, silent


@final
class PhaseClock:
    """Passes progress on and adds up how long each phase took, gaps counted to the one before."""

    def __init__(self, *, progress: Progress | None = None) -> None:
        self._next = silent if progress is None else progress
        self._seconds: dict[str, float] = {}
        self._phase = "start"
        self._since = monotonic()

    def report(self, event: ProgressEvent) -> None:
        """Note the phase of an event and pass it on."""
        if event.phase != self._phase:
            self._stop()
            self._phase = event.phase
        self._next(event)

    def phases(self) -> dict[str, float]:
        """Return seconds by phase up to now, in the order in which the phases began."""
        self._stop()
        return dict(self._seconds)

    def _stop(self) -> None:
        now = monotonic()
        self._seconds[self._phase] = self._seconds.get(self._phase, 0.0) + now - self._since
        self._since = now
