"""How a job ended, written once by its runner: the last file to appear in its folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import final

from pydantic import TypeAdapter

from mpsearch.core.files import to_json, write_atomically
from mpsearch.errors import MpsearchError
from mpsearch.jobs.problem import Problem, internal_problem, problem_of

_FILE = "outcome.json"


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


def failed(error: Exception) -> Outcome:
    """Return the outcome of a job that ended by an error."""
    if isinstance(error, MpsearchError):
        return Outcome(error=problem_of(error))
    detail = f"The job ended by {type(error).__name__}. Its log on the server says more."
    return Outcome(error=internal_problem(detail))
