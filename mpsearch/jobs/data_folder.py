"""The data folder: where each thing that the service keeps lies."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import final

import platformdirs

from mpsearch.errors import ConflictError, UsageError
from mpsearch.jobs.database import LOCAL


def default_data_folder() -> Path:
    """Return the folder of the user that the service keeps its data in unless told otherwise."""
    return Path(platformdirs.user_data_dir("mpsearch"))


@final
@dataclass(frozen=True, kw_only=True)
class DataFolder:
    """The places within one data folder.

    `database` is the URL of a Postgres, `bucket` that of a bucket for uploads, if there are any.
    """

    path: Path
    database: str | None = None
    bucket: str | None = None

    @property
    def database_url(self) -> str:
        """Return where jobs and their events are kept."""
        return self._postgres or f"sqlite:///{self.path / 'jobs.sqlite'}"

    @property
    def workflows_url(self) -> str:
        """Return where DBOS keeps its queue and what its workflows have done."""
        return self._postgres or f"sqlite:///{self.path / 'workflows.sqlite'}"

    @property
    def blobs(self) -> Path:
        """Return the folder of uploads."""
        return self.path / "blobs"

    def cache(self, tenant: str) -> Path:
        """Return the folder of a tenant's measured values, from which a killed job goes on."""
        return self.path / "cache" if tenant == LOCAL else self.path / "caches" / tenant

    def inputs(self, job_id: str) -> Path:
        """Return the folder of the uploads of a job, which its runner may only read."""
        return self.path / "inputs" / job_id

    def job(self, job_id: str) -> Path:
        """Return the folder of one job."""
        return self.path / "jobs" / job_id

    def result(self, job_id: str) -> Path:
        """Return the folder of a job's results, which appears at once and whole."""
        return self.job(job_id) / "result"

    @property
    def _postgres(self) -> str | None:
        if self.database is None:
            return None
        kind, mark, rest = self.database.partition("://")
        if kind not in {"postgresql", "postgres", "postgresql+psycopg"} or not mark:
            raise UsageError(
                f"A database of kind {kind[:20]!r} cannot be used. Expected MPS_DATABASE_URL to be "
                "postgresql://USER:PASSWORD@HOST/NAME, or not to be set. Mend it."
            )
        return f"postgresql+psycopg://{rest}"


@contextmanager
def owned(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold a lock file; the system gives it back when the process ends, however it ends.

    Raises:
        ConflictError: Another process holds it, and we shall not wait.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise ConflictError(
                f"The lock {str(path)!r} is held by another process. Expected one owner. "
                "End the other process, or choose another folder."
            ) from error
        yield
