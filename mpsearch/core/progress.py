"""Progress of long work: what is being done, how much of it, and how long it will still take."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias, TypeVar, final

T = TypeVar("T")


@final
@dataclass(frozen=True, kw_only=True)
class ProgressEvent:
    """`done` of `total` steps of a phase; `seconds_left` is None until the first step."""

    phase: str
    done: int
    total: int
    seconds: float
    seconds_left: float | None = None


Progress: TypeAlias = Callable[[ProgressEvent], None]


def silent(event: ProgressEvent) -> None:
    """Ignore an event; what `progress=None` stands for."""


def tracked(
    items: Iterable[T], phase: str, *, total: int, progress: Progress | None = None
) -> Iterator[T]:
    """Yield the items and report after each, with the time left at the pace so far.

    Example:
        >>> seen = []
        >>> for _ in tracked("ab", "read", total=2, progress=seen.append): pass
        >>> [event.done for event in seen]
        [0, 1, 2]
    """
    report = silent if progress is None else progress
    start = time.monotonic()
    report(ProgressEvent(phase=phase, done=0, total=total, seconds=0.0))
    for done, item in enumerate(items, start=1):
        yield item
        seconds = time.monotonic() - start
        left = seconds / done * max(total - done, 0)
        report(
            ProgressEvent(phase=phase, done=done, total=total, seconds=seconds, seconds_left=left)
        )
