"""The worker: takes jobs off a queue, under DBOS, so that no job is lost however it ends."""

import logging
import os
import secrets
import socket
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Final

import structlog
from dbos import DBOS, DBOSConfig
from sqlalchemy.exc import DBAPIError

from mpsearch.jobs.data_folder import DataFolder, owned
from mpsearch.jobs.fleet import Fleet
from mpsearch.jobs.job import JobState
from mpsearch.jobs.migrate import migrate
from mpsearch.jobs.problem import internal_problem
from mpsearch.jobs.queue import APPLICATION, QUEUE, SERIALIZER, WORKFLOW, WORKFLOW_SCHEMA
from mpsearch.jobs.store import JobStore
from mpsearch.jobs.tables import open_database
from mpsearch.worker.lease import LOST, Lease
from mpsearch.worker.supervise import Supervisor

_LOG: Final = logging.getLogger("mpsearch.worker")
_SECONDS_BETWEEN_LOOKS: Final = 0.2
_SECONDS_BETWEEN_BEATS: Final = 5.0
# DBOS gives the jobs of an executor back to one of the same name: on SQLite there is but one.
_ONLY: Final = "local"


def work(data: DataFolder, *, roots: Mapping[str, Path], queue: str = QUEUE) -> None:
    """Do jobs of a queue until the process ends.

    On SQLite there is one worker per data folder, and others wait; on Postgres, any number.
    """
    name = f"{socket.gethostname()[:30]}-{os.getpid()}-{secrets.token_hex(4)}"
    with ExitStack() as held:
        if data.database is None:
            held.enter_context(owned(data.path / "worker.lock"))
        engine = open_database(data.database_url)
        migrate(engine)
        lease = None if data.database is None else Lease(engine, name=name)
        store, fleet = JobStore(engine=engine, owner=name), Fleet(engine=engine)
        DBOS(config=_config(data, executor=_ONLY if lease is None else name))
        _register(Supervisor(data=data, store=store, roots=roots))
        DBOS.listen_queues([queue])
        DBOS.launch()
        DBOS.register_queue(
            queue,
            worker_concurrency=1,
            polling_interval_sec=_SECONDS_BETWEEN_LOOKS,
            on_conflict="always_update",
        )
        report_devices(fleet, queue=queue)
        if lease is None:
            for other in fleet.workers():
                fleet.forget(other.name)
        while True:
            if lease is not None:
                lease.check()
                take_over(fleet, lease=lease, own=name)
            fleet.beat(name, queue=queue)
            time.sleep(_SECONDS_BETWEEN_BEATS)


def take_over(fleet: Fleet, *, lease: Lease, own: str) -> None:
    """Give the jobs of dead workers back to their queues."""
    for other in fleet.workers():
        if other.name == own or not lease.take(other.name):
            continue
        try:
            for job in DBOS.list_workflows(
                executor_id=other.name, status="PENDING", load_input=False, load_output=False
            ):
                DBOS.resume_workflow(job.workflow_id, queue_name=other.queue)
            fleet.forget(other.name)
        finally:
            lease.give_back(other.name)


def report_devices(fleet: Fleet, *, queue: str = QUEUE) -> None:
    """Keep what each runtime here can do."""
    from mpsearch.errors import MissingPackageError
    from mpsearch.runtimes import RUNTIMES

    for name, runtime in RUNTIMES.items():
        try:
            device = asdict(runtime.device(1))
            bases, formats = list(runtime.bases), list(runtime.formats)
        except MissingPackageError:
            continue
        known = {"name": device["name"], "runtime": name, "software": device["software"]}
        entry = name if queue == QUEUE else f"{name} {queue}"[:40]
        fleet.keep_device(entry, {**known, "bases": bases, "formats": formats})


def _config(data: DataFolder, *, executor: str) -> DBOSConfig:
    return {
        "name": APPLICATION,
        "system_database_url": data.workflows_url,
        "serializer": SERIALIZER,
        "application_version": WORKFLOW_SCHEMA,
        "executor_id": executor,
        "log_level": "WARNING",
    }


def _register(supervisor: Supervisor) -> None:
    """Register the workflow: one step, because what is inside a step resumes from the cache."""

    @DBOS.step(name="run")
    def run(job_id: str) -> str:
        with structlog.contextvars.bound_contextvars(job_id=job_id):
            try:
                return supervisor.run(job_id)
            except DBAPIError:
                # Within the step, or its end would be kept as its result. Nobody can tell now how
                # the job stands; it goes on when a worker starts again.
                _LOG.exception("The database fails. The worker starts again.")
                os._exit(LOST)

    # Deaths are counted by the supervisor, which sees whether a job gets further.
    @DBOS.workflow(name=WORKFLOW, max_recovery_attempts=None)
    def search(job_id: str) -> dict[str, str]:
        try:
            state = run(job_id)
        except Exception as error:
            problem = internal_problem(f"The worker failed: {type(error).__name__}: {error}")
            supervisor.store.finish(
                job_id, state=JobState.FAILED, error=problem.model_dump(exclude_none=True)
            )
            raise
        return {"job": job_id, "state": state}
