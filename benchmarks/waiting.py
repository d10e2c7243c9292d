"""Wait for what other processes do: never for ever, and saying what was awaited."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

Found = TypeVar("Found")
# What a busy machine may take, far beyond a quiet one.
PATIENCE_SECONDS: Final = 120.0
_LOOK_SECONDS: Final = 0.05
_SHOWN_BYTES: Final = 4000


def nothing_more() -> str:
    """Add nothing to what was awaited."""
    return ""


def waited_for(
    look: Callable[[], Found | None],
    awaited: str,
    *,
    seconds: float = PATIENCE_SECONDS,
    told: Callable[[], str] = nothing_more,
) -> Found:
    """Return what `look` finds as soon as that is true.

    Raises:
        TimeoutError: It took longer; names what was awaited, and what `told` says then.

    Example:
        >>> answers = iter([0, 0, 3])
        >>> waited_for(lambda: next(answers), "a number")
        3
    """
    deadline = time.monotonic() + seconds
    while not (found := look()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"After {seconds:.0f} s there is not yet {awaited}. {told()}")
        time.sleep(_LOOK_SECONDS)
    return found


def ending(log: Path) -> str:
    """Return how a log ends, to be told beside what went wrong."""
    if not log.exists():
        return f"There is no {log.name}."
    text = log.read_bytes()[-_SHOWN_BYTES:].decode(errors="replace")
    return f"{log.name} ends with:\n{text}"
