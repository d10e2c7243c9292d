"""What a worker hands to the runner of one job: a file in the job's folder."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

from pydantic import TypeAdapter

from mpsearch.core.files import to_json, write_atomically
from mpsearch.worker.inputs import Inputs
from mpsearch.workflow.division import Sharding

_FILE: Final = "assignment.json"
# Held by the runner of a job: there is one at a time, whatever becomes of workers.
LOCK: Final = "lock"


@final
@dataclass(frozen=True, kw_only=True)
class Assignment:
    """A request, and where its files and the measured values lie.

    With `layers` only they are measured; with `sharding` the runner may leave such shards to
    others, and ends without an outcome.
    """

    request: Mapping[str, Any]
    inputs: Inputs
    cache: Path
    layers: tuple[str, ...] | None = None
    sharding: Sharding | None = None

    def save(self, folder: Path) -> None:
        """Write it into the folder of the job."""
        write_atomically(folder / _FILE, to_json(self).encode())


def load_assignment(folder: Path) -> Assignment:
    """Return what the job of a folder has to do."""
    return TypeAdapter(Assignment).validate_json((folder / _FILE).read_bytes())
