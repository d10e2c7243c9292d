"""A job, and the states that it goes through."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, final


class JobState(StrEnum):
    """Where a job is."""

    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


DONE: Final = (JobState.CANCELLED, JobState.SUCCEEDED, JobState.FAILED)
UNFINISHED: Final = (JobState.QUEUED, JobState.RUNNING, JobState.CANCELLING)


@final
@dataclass(frozen=True, kw_only=True)
class Job:
    """One job as it stands; times are seconds since 1970, `progress` is the latest event.

    `version` counts its events, so two answers of the same version are the same.
    """

    id: str
    tenant: str
    state: JobState
    queue: str
    request: Mapping[str, Any]
    created: float
    started: float | None = None
    finished: float | None = None
    error: Mapping[str, Any] | None = None
    progress: Mapping[str, Any] | None = None
    version: int
    owner: str | None = None

    @property
    def is_done(self) -> bool:
        """Return whether it has ended, well or not."""
        return self.state in DONE


@final
@dataclass(frozen=True, kw_only=True)
class Once:
    """A name that a caller gave to a request, so that repeating it does it once."""

    key: str
    digest: str
