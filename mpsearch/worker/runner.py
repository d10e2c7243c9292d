"""The runner of one job: `python -m mpsearch.worker.runner FOLDER`, a process of its own.

Writes progress as JSON lines to stdout and the result into the folder, whole or not at all.
Killed at any moment it can be started again: what was measured is found in the cache.
"""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter

from mpsearch.core.files import to_json, write_atomically
from mpsearch.core.progress import ProgressEvent
from mpsearch.jobs.blobs import BlobStore
from mpsearch.jobs.data_folder import owned
from mpsearch.jobs.request import DataSource, JobRequest
from mpsearch.jobs.sources import Sources
from mpsearch.worker.assignment import Assignment, load_assignment
from mpsearch.worker.lifeline import end_with_parent
from mpsearch.worker.outcome import Outcome, failed, load_outcome

_LOCK: Final = "lock"
_EVENT: Final = TypeAdapter(ProgressEvent)


def main(folder: Path) -> None:
    """Run the job of a folder, unless it has ended; never two runners at once."""
    report = _reporter()
    end_with_parent()
    with owned(folder / _LOCK):
        if load_outcome(folder) is not None:
            return
        try:
            _search(folder, report=report)
        except Exception as error:  # noqa: BLE001  # whatever ends a job becomes its outcome
            sys.excepthook(type(error), error, error.__traceback__)
            outcome = failed(error)
        else:
            outcome = Outcome()
        outcome.save(folder)


def _reporter() -> Callable[[ProgressEvent], None]:
    """Keep stdout for progress: what libraries print goes to stderr."""
    lines = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def report(event: ProgressEvent) -> None:
        lines.write(_EVENT.dump_json(event).decode() + "\n")
        lines.flush()

    return report


def _search(folder: Path, *, report: Callable[[ProgressEvent], None]) -> None:
    assignment = load_assignment(folder)
    request = JobRequest.model_validate(assignment.request)
    scratch = _emptied(folder / "scratch")
    inputs = _Inputs(assignment, scratch=scratch)
    model = inputs.model(request)
    from mpsearch.workflow.search import search

    result = search(
        model,
        inputs.data(request.calibration, name="calibration"),
        validation=inputs.optional(request.validation, name="validation"),
        test=inputs.optional(request.test, name="test"),
        budgets=request.budgets,
        task=request.task,
        formats=request.formats,
        fixed=request.fixed,
        runtime=request.runtime,
        workloads=request.workload,
        threads=request.threads,
        seed=request.seed,
        solver=request.solver,
        cache=assignment.cache,
        progress=report,
    )
    written = _emptied(folder / "unfinished")
    result.save(written)
    write_atomically(written / "frontier.json", to_json(result.front).encode())
    _replace(written, folder / "result")
    shutil.rmtree(scratch)


def _emptied(folder: Path) -> Path:
    """Return a folder without what a runner that was killed left in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _replace(written: Path, target: Path) -> None:
    # A runner killed between renaming and telling so has left a whole result: ours is the same.
    shutil.rmtree(target, ignore_errors=True)
    written.rename(target)


class _Inputs:
    """Files that the request names; uploads appear in `scratch` under the names they need."""

    def __init__(self, assignment: Assignment, *, scratch: Path) -> None:
        self._sources = Sources(roots=assignment.roots, blobs=BlobStore(folder=assignment.blobs))
        self._scratch = scratch

    def model(self, request: JobRequest) -> Path:
        found = self._sources.model(request.model)
        if isinstance(found, Path):
            return found
        for name, blob in found.items():
            _linked(blob, self._scratch / "model" / name)
        return self._scratch / "model"

    def data(self, source: DataSource, *, name: str) -> Path:
        path, suffix = self._sources.data(source)
        if path.suffix == suffix:
            return path
        return _linked(path, self._scratch / f"{name}{suffix}")

    def optional(self, source: DataSource | None, *, name: str) -> Path | None:
        return None if source is None else self.data(source, name=name)


def _linked(blob: Path, target: Path) -> Path:
    # Uploads are read-only and refer to no other file, so a second name is as good as a copy.
    target.parent.mkdir(parents=True, exist_ok=True)
    target.hardlink_to(blob)
    return target


if __name__ == "__main__":
    main(Path(sys.argv[1]))
