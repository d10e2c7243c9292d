"""Laws of what DBOS stores: JSON, never pickle."""

import json
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from dbos import WorkflowStatus

from benchmarks.service.postgres import Postgres
from mpsearch.api.service import Service, open_service
from mpsearch.api.settings import Settings
from mpsearch.jobs.data_folder import DataFolder
from mpsearch.jobs.fleet import Fleet
from mpsearch.jobs.job import JobState
from mpsearch.jobs.migrate import migrate
from mpsearch.jobs.tables import open_database
from mpsearch.worker import main
from mpsearch.worker.lease import LOST, Lease

QUERY = """
select status, serialization, workflow_input.inputs, workflow_output.output, application_version
from workflow_status
left join workflow_input using (workflow_uuid)
left join workflow_output using (workflow_uuid)
order by workflow_status.created_at
"""


def rows(data: DataFolder) -> list[tuple[str | None, ...]]:
    with sqlite3.connect(data.path / "workflows.sqlite") as connection:
        return connection.execute(QUERY).fetchall()


def runtimes(service: Service) -> set[str]:
    return {str(device["runtime"]) for device in service.fleet.devices()}


def test_the_queue_of_sqlite_is_written_ahead(tmp_path: Path) -> None:
    # Else each commit waits for the disk several times, and readers hold back writers.
    service = open_service(Settings(data=DataFolder(path=tmp_path)))
    with sqlite3.connect(tmp_path / "workflows.sqlite") as connection:
        assert connection.execute("pragma journal_mode").fetchone() == ("wal",)
    service.close()


def test_what_is_stored_is_json_of_a_pinned_version(tmp_path: Path) -> None:
    data = DataFolder(path=tmp_path)
    service = open_service(Settings(data=data))
    job = service.store.add({"budgets": {}})  # no request: it fails, and is told so
    service.queue.put([(job.id, job.queue)])
    service.queue.put([(job.id, job.queue)])
    ((_, kind, inputs, _, version),) = rows(data)
    assert (kind, version) == ("portable_json", "1")
    assert job.id in str(inputs)
    command = [sys.executable, "-m", "mpsearch.worker", str(tmp_path), "--end-with-parent"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as worker:
        deadline = time.monotonic() + 120
        # It tells of its runtimes one by one, while it works.
        while rows(data)[0][0] != "SUCCESS" or "simulation" not in runtimes(service):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        worker.kill()
    ended = service.store.get(job.id)
    assert ended.state is JobState.FAILED
    assert ended.error is not None
    found = rows(data)
    assert [(kind, version) for _, kind, _, _, version in found] == [("portable_json", "1")] * 2
    assert json.loads(str(found[0][3])) == {"job": job.id, "state": "failed"}
    assert json.loads(str(found[1][3])) == "failed"
    service.close()


# A worker whose only job takes for ever, and whose main thread fails as soon as it has begun.
FAILS = """
import sys, time
from pathlib import Path
from mpsearch.jobs.data_folder import DataFolder
from mpsearch.worker import main, supervise
data = DataFolder(path=Path(sys.argv[1]))
def run(self, job_id, *, may_divide=False):
    (data.path / "begun").touch()
    time.sleep(3600)
supervise.Supervisor.run = run
def report_devices(*_, **__):
    while not (data.path / "begun").exists():
        time.sleep(0.05)
    raise OSError("no device")
main.report_devices = report_devices
main.work(data, roots={})
"""


def test_a_worker_that_fails_ends_whatever_its_threads_do(tmp_path: Path) -> None:
    service = open_service(Settings(data=DataFolder(path=tmp_path)))
    job = service.store.add({"budgets": {}})
    service.queue.put([(job.id, job.queue)])
    service.close()
    with subprocess.Popen([sys.executable, "-c", FAILS, str(tmp_path)]) as worker:
        try:
            assert worker.wait(timeout=120) == LOST
        finally:
            worker.kill()
    assert (tmp_path / "begun").exists()


def workflow(*, executor: str, queue: str) -> WorkflowStatus:
    """Return the workflow of an executor, as DBOS lists it."""
    made = WorkflowStatus()
    made.workflow_id, made.executor_id, made.queue_name = f"of {executor}", executor, queue
    return made


def test_jobs_of_a_worker_that_died_before_it_told_of_itself_are_taken_over(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_database(postgres.database())
    migrate(engine)
    fleet = Fleet(engine=engine)
    own, living = Lease(engine, name="own"), Lease(engine, name="living")
    taken = [
        workflow(executor=name, queue=queue)
        for name, queue in (("own", "dev:cpu"), ("living", "dev:cpu"), ("dead", "dev:h200"))
    ]
    resumed: list[tuple[str, str]] = []

    def listed(*, executor_id: str | None, status: str, **_: bool) -> list[WorkflowStatus]:
        assert status == "PENDING"
        return [each for each in taken if executor_id in {None, each.executor_id}]

    def resume(workflow_id: str, *, queue_name: str) -> None:
        resumed.append((workflow_id, queue_name))

    monkeypatch.setattr(
        main, "DBOS", SimpleNamespace(list_workflows=listed, resume_workflow=resume)
    )
    fleet.beat("living", queue="dev:cpu")
    main.take_over(fleet, lease=own, own="own")
    assert resumed == [("of dead", "dev:h200")]
    assert [worker.name for worker in fleet.workers()] == ["living"]
    living.check()
    engine.dispose()
