"""The workflows: one of each job, which waits for those of its runners.

Whatever runs a model is a child workflow on the queue of runners, of which a worker takes one at a
time. The job's own workflow waits on another queue, so that waiting holds no runner back.
"""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import structlog
from dbos import DBOS, SetWorkflowID
from sqlalchemy.exc import DBAPIError

from mpsearch.errors import AbsentError
from mpsearch.jobs.job import JobState
from mpsearch.jobs.problem import internal_problem
from mpsearch.jobs.queue import WORKFLOW, runners_queue
from mpsearch.worker.lease import LOST
from mpsearch.worker.shards import ShardSupervisor
from mpsearch.worker.supervise import DIVIDED, Supervisor

_LOG: Final = logging.getLogger("mpsearch.worker")
_SECONDS_BETWEEN_LOOKS: Final = 0.2


def register_workflows(supervisor: Supervisor, shards: ShardSupervisor, *, queue: str) -> None:
    """Make them known to DBOS; each step repeats safely, since what it measures is cached.

    Deaths are counted by the supervisors, which see whether a job gets further, not by DBOS.
    """
    job, shard = _job_runner(supervisor), _shard_runner(shards)
    runners = runners_queue(queue)

    @DBOS.step(name="divide")
    def divide(job_id: str) -> int:
        return len(supervisor.shards.of(job_id))

    @DBOS.step(name="wait")
    def wait(job_id: str) -> str:
        with _told_of(job_id):
            return supervisor.wait(job_id)

    @DBOS.workflow(name=WORKFLOW, max_recovery_attempts=None)
    def search(job_id: str) -> dict[str, str]:
        # Also between steps, or the workflow would end and leave a job that never does.
        with _told_of(job_id):
            return {"job": job_id, "state": run_all(job_id)}

    def run_all(job_id: str) -> str:
        with SetWorkflowID(f"{job_id}:first"):
            first = DBOS.enqueue_workflow(runners, job, job_id, True)
        state = first.get_result(polling_interval_sec=_SECONDS_BETWEEN_LOOKS)
        if state == DIVIDED:
            for number in range(divide(job_id)):
                with SetWorkflowID(f"{job_id}:shard-{number}"):
                    DBOS.enqueue_workflow(runners, shard, job_id, number)
            state = wait(job_id)
            if state == JobState.RUNNING:
                with SetWorkflowID(f"{job_id}:last"):
                    last = DBOS.enqueue_workflow(runners, job, job_id, False)
                state = last.get_result(polling_interval_sec=_SECONDS_BETWEEN_LOOKS)
        return state


def _job_runner(supervisor: Supervisor) -> Callable[[str, bool], str]:
    @DBOS.step(name="run")
    def run(job_id: str, may_divide: bool) -> str:  # noqa: FBT001  # as DBOS stores it
        with _told_of(job_id):
            return supervisor.run(job_id, may_divide=may_divide)

    @DBOS.workflow(name="job", max_recovery_attempts=None)
    def job(job_id: str, may_divide: bool) -> str:  # noqa: FBT001  # as DBOS stores it
        try:
            return run(job_id, may_divide)
        except Exception as error:
            with _told_of(job_id):
                supervisor.store.finish(job_id, state=JobState.FAILED, error=_failed(error))
            raise

    return job


def _shard_runner(shards: ShardSupervisor) -> Callable[[str, int], None]:
    @DBOS.step(name="measure")
    def measure(job_id: str, number: int) -> None:
        with _told_of(job_id):
            try:
                shards.run(job_id, number=number)
            except AbsentError:
                _LOG.info("Job %s was deleted before its shard %d began.", job_id, number)

    @DBOS.workflow(name="shard", max_recovery_attempts=None)
    def shard(job_id: str, number: int) -> None:
        try:
            measure(job_id, number)
        except Exception as error:
            with _told_of(job_id):
                shards.store_of_shards.finish(job_id, number=number, error=_failed(error))
            raise

    return shard


def _failed(error: Exception) -> dict[str, Any]:
    problem = internal_problem(f"The worker failed: {type(error).__name__}: {error}")
    return problem.model_dump(exclude_none=True)


@contextmanager
def _told_of(job_id: str) -> Iterator[None]:
    """Name the job in the log, and end this process where the database fails."""
    with structlog.contextvars.bound_contextvars(job_id=job_id):
        try:
            yield
        except DBAPIError:
            # Before DBOS sees it, or it would keep that as the end. Nobody can tell now how
            # the job stands; it goes on when a worker starts again.
            _LOG.exception("The database fails. The worker starts again.")
            os._exit(LOST)
