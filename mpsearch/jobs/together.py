"""What several threads want at once is done by one of them for all."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Event, Lock
from typing import Generic, TypeVar, final

Wish = TypeVar("Wish")
Outcome = TypeVar("Outcome")


@final
class Together(Generic[Wish, Outcome]):
    """Calls `work` with whatever has come in while it last ran, never twice at a time.

    Where each call waits for the disk, ten threads wait twice instead of ten times. Who finds
    nobody at work begins at once, so one thread alone waits for no company. `work` returns an
    outcome for each wish, in their order; an exception that it returns is raised to whoever
    asked, one that it raises to all of them.
    """

    def __init__(self, work: Callable[[Sequence[Wish]], Sequence[Outcome | Exception]]) -> None:
        self._work = work
        self._lock = Lock()
        self._waiting: list[_Asked[Wish, Outcome]] = []
        self._is_at_work = False

    def __call__(self, wish: Wish) -> Outcome:
        """Return the outcome of a wish, once it is there."""
        asked: _Asked[Wish, Outcome] = _Asked(wish=wish)
        with self._lock:
            self._waiting.append(asked)
            works = not self._is_at_work
            self._is_at_work = True
        if not works:
            asked.woken.wait()
        if not asked.outcome:
            self._work_for_all()
        (outcome,) = asked.outcome
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def _work_for_all(self) -> None:
        with self._lock:
            group, self._waiting = self._waiting, []
        try:
            outcomes = self._work([asked.wish for asked in group])
            for asked, outcome in zip(group, outcomes, strict=True):
                asked.outcome.append(outcome)
        except BaseException as error:  # noqa: BLE001  # raised to whoever asked
            for asked in group:
                asked.outcome.append(error)
        with self._lock:
            after = self._waiting[:1]
            self._is_at_work = bool(after)
        # Whoever came first meanwhile works for those after it.
        for asked in (*after, *group):
            asked.woken.set()


@dataclass(kw_only=True)
class _Asked(Generic[Wish, Outcome]):
    wish: Wish
    woken: Event = field(default_factory=Event)
    # One, once it is there: None may be an outcome.
    outcome: list[Outcome | BaseException] = field(default_factory=list)
