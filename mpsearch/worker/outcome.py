"""How a job ended, written once by its runner: the last file to appear in its folder."""

import errno
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from pydantic import TypeAdapter

from mpsearch.core.files import to_json, write_atomically
from mpsearch.errors import MpsearchError
from mpsearch.jobs.problem import Problem, internal_problem, problem_named, problem_of

_FILE: Final = "outcome.json"
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
# How a runner ends that cannot even write its outcome.
NO_ROOM: Final = 74  # EX_IOERR of sysexits.h


@final
@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a job ended; `error` is None where it succeeded."""

    error: Problem | None = None

    def save(self, folder: Path) -> None:
        """Write it into the folder of the job."""
        write_atomically(folder / _FILE, to_json(self).encode())


def load_outcome(folder: Path) -> Outcome | None:
    """Return how the job of a folder ended, None where it has not."""
    path = folder / _FILE
    return TypeAdapter(Outcome).validate_json(path.read_bytes()) if path.exists() else None


def seconds_since_outcome(folder: Path) -> float:
    """Return how long ago the job of a folder ended, none where it has not."""
    try:
        return time.time() - (folder / _FILE).stat().st_mtime
    except FileNotFoundError:
        return 0.0


def failed(error: Exception) -> Outcome:
    """Return the outcome of a job that ended by an error."""
    if is_no_room(error):
        return no_room()
    if isinstance(error, MpsearchError):
        return Outcome(error=problem_of(error))
    detail = f"The job ended by {type(error).__name__}. Its log on the server says more."
    return Outcome(error=internal_problem(detail))


def no_room() -> Outcome:
    """Return the outcome of a job that found the disk full."""
    return Outcome(
        error=problem_named(
            "disk-full",
            title="The disk is full",
            detail="The server has no room left for what the job measures. Expected some GB in its "
            "data folder. What was measured is kept: make room, and post it again to go on.",
        )
    )


def is_no_room(error: BaseException) -> bool:
    """Return whether an error, or one that it came from, says that a disk is full."""
    return any(isinstance(each, OSError) and each.errno in _FULL for each in _origins(error))


def _origins(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    origin: BaseException | None = error
    while origin is not None and id(origin) not in seen:
        seen.add(id(origin))
        yield origin
        origin = origin.__cause__ or origin.__context__
