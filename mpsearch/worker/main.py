"""The worker: takes jobs off the queue, under DBOS, so that no job is lost however it ends."""

import threading
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Final

from dbos import DBOS, DBOSConfig

from mpsearch.jobs.data_folder import DataFolder, owned
from mpsearch.jobs.fleet import Fleet
from mpsearch.jobs.job import JobState
from mpsearch.jobs.migrate import migrate
from mpsearch.jobs.problem import internal_problem
from mpsearch.jobs.queue import APPLICATION, QUEUE, SERIALIZER, WORKFLOW, WORKFLOW_SCHEMA
from mpsearch.jobs.store import JobStore
from mpsearch.jobs.tables import open_database
from mpsearch.worker.supervise import Supervisor

_SECONDS_BETWEEN_LOOKS: Final = 0.2


def work(data: DataFolder, *, roots: Mapping[str, Path]) -> None:
    """Do jobs until the process ends; there is one worker per data folder, others wait."""
    with owned(data.path / "worker.lock"):
        engine = open_database(data.database_url)
        migrate(engine)
        store = JobStore(engine=engine)
        DBOS(config=_config(data))
        _register(Supervisor(data=data, store=store, roots=roots))
        DBOS.launch()
        DBOS.register_queue(
            QUEUE,
            worker_concurrency=1,
            polling_interval_sec=_SECONDS_BETWEEN_LOOKS,
            on_conflict="always_update",
        )
        report_devices(Fleet(engine=engine))
        threading.Event().wait()


def report_devices(fleet: Fleet) -> None:
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
        fleet.keep_device(name, {**known, "bases": bases, "formats": formats})


def _config(data: DataFolder) -> DBOSConfig:
    return {
        "name": APPLICATION,
        "system_database_url": data.workflows_url,
        "serializer": SERIALIZER,
        "application_version": WORKFLOW_SCHEMA,
        "log_level": "WARNING",
    }


def _register(supervisor: Supervisor) -> None:
    """Register the workflow: one step, because what is inside a step resumes from the cache."""

    @DBOS.step(name="run")
    def run(job_id: str) -> str:
        return supervisor.run(job_id)

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
