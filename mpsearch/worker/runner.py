"""The runner of one job: `python -m mpsearch.worker.runner FOLDER`, a process of its own.

Writes progress as JSON lines to stdout and the result into the folder, whole or not at all.
Killed at any moment it can be started again: what was measured is found in the cache.
"""

import os
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import TypeAdapter

from mpsearch.core.files import to_json, write_atomically
from mpsearch.core.progress import ProgressEvent
from mpsearch.jobs.data_folder import owned
from mpsearch.jobs.request import JobRequest
from mpsearch.worker.assignment import LOCK, Assignment, load_assignment
from mpsearch.worker.divided import save_shards
from mpsearch.worker.lifeline import end_with_parent
from mpsearch.worker.outcome import NO_ROOM, Outcome, failed, is_no_room, load_outcome
from mpsearch.workflow.division import Sharding

if TYPE_CHECKING:
    from mpsearch.workflow.decoupling import GroupingSource
    from mpsearch.workflow.prepare import Prepared

_EVENT: Final = TypeAdapter(ProgressEvent)


def main(folder: Path) -> None:
    """Run the job of a folder, unless it has ended; never two runners at once."""
    report = _reporter()
    end_with_parent()
    try:
        with owned(folder / LOCK):
            if load_outcome(folder) is None and (outcome := _ended(folder, report=report)):
                outcome.save(folder)
    except OSError as error:
        if not is_no_room(error):
            raise
        # At once: the log that is flushed at the end may have no room either.
        os._exit(NO_ROOM)


def _ended(folder: Path, *, report: Callable[[ProgressEvent], None]) -> Outcome | None:
    """Do what is assigned; None where shards are to come first."""
    try:
        assignment = load_assignment(folder)
        if assignment.layers is not None:
            _measure_shard(assignment, layers=assignment.layers, report=report)
        elif not _search(assignment, folder=folder, report=report):
            return None
    except Exception as error:  # noqa: BLE001  # whatever ends a job becomes its outcome
        sys.excepthook(type(error), error, error.__traceback__)
        return failed(error)
    return Outcome()


def _reporter() -> Callable[[ProgressEvent], None]:
    """Keep stdout for progress: what libraries print goes to stderr."""
    lines = os.dup(1)
    os.dup2(2, 1)
    # A worker that froze reads nothing: the job goes on, and the next worker finds its outcome.
    os.set_blocking(lines, False)

    def report(event: ProgressEvent) -> None:
        with suppress(BlockingIOError):
            # Whole or not at all, as short as a line is (pipe(7)).
            os.write(lines, _EVENT.dump_json(event) + b"\n")

    return report


def _measure_shard(
    assignment: Assignment, *, layers: tuple[str, ...], report: Callable[[ProgressEvent], None]
) -> None:
    from mpsearch.workflow.sharding import measure_shard

    request = JobRequest.model_validate(assignment.request)
    measure_shard(
        _prepared(assignment, request, report=report),
        layers,
        formats=request.formats,
        runtime=request.runtime,
        fixed=request.fixed,
        progress=report,
    )


def _prepared(
    assignment: Assignment, request: JobRequest, *, report: Callable[[ProgressEvent], None]
) -> "Prepared":
    from mpsearch.workflow.prepare import offers_products, prepare

    data = assignment.inputs.data
    return prepare(
        assignment.inputs.model,
        data["calibration"],
        task=request.task,
        validation=data.get("validation"),
        test=data.get("test"),
        runtime=request.runtime,
        workloads=request.workloads,
        cache=assignment.cache,
        progress=report,
        ranges=request.ranges,
        pairs=request.pairs,
        has_products=offers_products(request.formats),
    )


def _is_divided(
    prepared: "Prepared",
    request: JobRequest,
    *,
    sharding: Sharding,
    folder: Path,
    report: Callable[[ProgressEvent], None],
) -> bool:
    """Ask for shards where they pay."""
    from mpsearch.workflow.effort import Effort
    from mpsearch.workflow.sharding import shards_of

    shards = shards_of(
        prepared,
        sharding=sharding,
        formats=request.formats,
        runtime=request.runtime,
        fixed=request.fixed,
        effort=Effort.of(request.effort, seconds=request.seconds),
        progress=report,
    )
    if shards:
        save_shards(shards, folder)
    return bool(shards)


def _search(
    assignment: Assignment, *, folder: Path, report: Callable[[ProgressEvent], None]
) -> bool:
    """Search, and keep the result; False where shards were asked for instead."""
    request = JobRequest.model_validate(assignment.request)
    data = assignment.inputs.data
    from mpsearch.workflow.search import search

    model: "Path | Prepared" = assignment.inputs.model
    if (sharding := assignment.sharding) is not None:
        model = _prepared(assignment, request, report=report)
        if _is_divided(model, request, sharding=sharding, folder=folder, report=report):
            return False
    result = search(
        model,
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
    return True


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
    # Nothing is left to do, and libraries with threads of their own can hang while Python ends.
    sys.stderr.flush()
    os._exit(0)
