"""Laws of the queue: what was put is there once, with the words that workers expect."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from mpsearch.jobs.job_queue import JobQueue
from mpsearch.jobs.queue import QUEUE, WORKFLOW, WORKFLOW_SCHEMA, migrate_queue


@pytest.fixture(params=["sqlite", "postgresql"])
def queue(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[JobQueue]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'workflows.sqlite'}"
    else:
        url = request.getfixturevalue("postgres").database()
    migrate_queue(url)
    opened = JobQueue(url)
    yield opened
    opened.close()


def test_jobs_put_together_are_there_as_jobs_put_alone(queue: JobQueue) -> None:
    queue.put([("alone", QUEUE)])
    queue.put([(f"job-{place}", QUEUE) for place in range(120)])
    queue.put([("elsewhere", "dev:gpu"), ("alone", QUEUE)])
    found = {job.workflow_id: job for job in queue.client.list_workflows()}
    assert set(found) == {"alone", "elsewhere", *(f"job-{place}" for place in range(120))}
    for name, job in found.items():
        assert job.input == {"args": (name,), "kwargs": {}}
        assert (job.name, job.app_version, job.status) == (WORKFLOW, WORKFLOW_SCHEMA, "ENQUEUED")
        assert job.queue_name == ("dev:gpu" if name == "elsewhere" else QUEUE)


def test_what_cannot_be_put_together_is_put_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path / 'workflows.sqlite'}"
    migrate_queue(url)
    queue = JobQueue(url)

    def locked(*_: object, **__: object) -> None:
        raise OperationalError("insert", {}, Exception("database is locked"))

    monkeypatch.setattr(queue.client, "enqueue_in_transaction", locked)
    queue.put([("one", QUEUE), ("two", QUEUE)])
    assert {job.workflow_id for job in queue.client.list_workflows()} == {"one", "two"}
    queue.close()
