"""The runner of one job: `python -m mpsearch.worker.runner FOLDER`, a process of its own.

Writes progress as JSON lines to stdout and the result into the folder, whole or not at all.
Killed at any moment it can be started again: what was measured is found in the cache.
"""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import TypeAdapter

from mpsearch.core.files import to_json, write_atomically
from mpsearch.core.progress import ProgressEvent
from mpsearch.jobs.data_folder import owned
from mpsearch.jobs.request import JobRequest
from mpsearch.worker.assignment import LOCK, load_assignment
from mpsearch.worker.lifeline import end_with_parent
from mpsearch.worker.outcome import NO_ROOM, Outcome, failed, is_no_room, load_outcome

if TYPE_CHECKING:
    from mpsearch.workflow.decoupling import GroupingSource

_EVENT: Final = TypeAdapter(ProgressEvent)


def main(folder: Path) -> None:
    """Run the job of a folder, unless it has ended; never two runners at once."""
    report = _reporter()
    end_with_parent()
    try:
        with owned(folder / LOCK):
            if load_outcome(folder) is None:
                _ended(folder, report=report).save(folder)
    except OSError as error:
        if not is_no_room(error):
            raise
        # At once: the log that is flushed at the end may have no room either.
        os._exit(NO_ROOM)


def _ended(folder: Path, *, report: Callable[[ProgressEvent], None]) -> Outcome:
    try:
        _search(folder, report=report)
    except Exception as error:  # noqa: BLE001  # whatever ends a job becomes its outcome
        sys.excepthook(type(error), error, error.__traceback__)
        return failed(error)
    return Outcome()


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
    data = assignment.inputs.data
    from mpsearch.workflow.search import search

    result = search(
        assignment.inputs.model,
        data["calibration"],
        validation=data.get("validation"),
        test=data.get("test"),
        budgets=request.budgets,
        max_drop=request.max_drop,
        drop_of=request.drop_of,
        minimise=request.minimise,
        task=request.task,
        formats=request.formats,
        fixed=request.fixed,
        runtime=request.runtime,
        workloads=request.workloads,
        threads=request.threads,
        seed=request.seed,
        solver=request.solver,
        effort=request.effort,
        seconds=request.seconds,
        groups=_groups(request),
        ranges=request.ranges,
        pairs=request.pairs,
        cache=assignment.cache,
        progress=report,
    )
    written = _emptied(folder / "unfinished")
    result.save(written)
    write_atomically(written / "frontier.json", to_json(result.front).encode())
    _replace(written, folder / "result")


def _groups(request: JobRequest) -> "GroupingSource | None":
    from mpsearch.search.grouping import LayerGroup

    if request.groups is None or isinstance(request.groups, str):
        return request.groups
    return tuple(LayerGroup(**group.model_dump()) for group in request.groups)


def _emptied(folder: Path) -> Path:
    """Return a folder without what a runner that was killed left in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _replace(written: Path, target: Path) -> None:
    # A runner killed between renaming and telling so has left a whole result: ours is the same.
    shutil.rmtree(target, ignore_errors=True)
    written.rename(target)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
