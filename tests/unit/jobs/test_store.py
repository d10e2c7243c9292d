"""Laws of jobs: states only move forward, and each change is noted once."""

from pathlib import Path

import pytest
from sqlalchemy import select

from mpsearch.core.progress import ProgressEvent
from mpsearch.errors import AbsentError, ConflictError
from mpsearch.jobs.store import JobState, JobStore
from mpsearch.jobs.tables import JOB_EVENTS, SCHEMA, migrate, open_database


def opened(folder: Path) -> JobStore:
    engine = open_database(f"sqlite:///{folder / 'jobs.sqlite'}")
    migrate(engine)
    return JobStore(engine=engine)


@pytest.fixture
def store(tmp_path: Path) -> JobStore:
    return opened(tmp_path)


def step(done: int, total: int = 4) -> ProgressEvent:
    return ProgressEvent(phase="measure", done=done, total=total, seconds=1.0)


def states(store: JobStore, job_id: str) -> list[str]:
    with store.engine.connect() as connection:
        query = select(JOB_EVENTS.c.data).where(
            JOB_EVENTS.c.job_id == job_id, JOB_EVENTS.c.kind == "state"
        )
        return [data["state"] for data in connection.execute(query).scalars()]


def test_a_job_is_kept_as_it_was_posted(store: JobStore, tmp_path: Path) -> None:
    job = store.add({"budgets": {"latency": "4ms"}})
    assert opened(tmp_path).get(job.id) == job
    assert not job.is_done


def test_ids_are_ordered_by_time(store: JobStore) -> None:
    ids = [store.add({}).id for _ in range(50)]
    assert ids == sorted(set(ids))
    assert store.unfinished() == tuple(ids)


def test_an_unknown_job_is_absent(store: JobStore) -> None:
    with pytest.raises(AbsentError, match="not known"):
        store.get("01939f7e-7a5b-7c3d-9e1f-2a3b4c5d6e7f")
    with pytest.raises(AbsentError, match="not known"):
        store.cancel("01939f7e-7a5b-7c3d-9e1f-2a3b4c5d6e7f")


def test_a_job_starts_again_and_keeps_its_first_start(store: JobStore) -> None:
    job = store.add({})
    assert store.start(job.id)
    first = store.get(job.id).started
    assert store.start(job.id)
    assert store.get(job.id).started == first is not None


@pytest.mark.parametrize("state", [JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED])
def test_a_job_ends_once(store: JobStore, state: JobState) -> None:
    job = store.add({})
    store.start(job.id)
    assert store.finish(job.id, state=state)
    assert not store.finish(job.id, state=JobState.FAILED)
    assert not store.start(job.id)
    ended = store.get(job.id)
    assert ended.state is state
    assert ended.is_done
    assert ended.finished is not None
    assert store.unfinished() == ()
    assert states(store, job.id) == ["queued", "running", state]


def test_a_waiting_job_is_cancelled_at_once(store: JobStore) -> None:
    job = store.add({})
    assert store.cancel(job.id).state is JobState.CANCELLED
    assert store.cancel(job.id).state is JobState.CANCELLED
    assert not store.start(job.id)


def test_a_running_job_is_asked_to_end(store: JobStore) -> None:
    job = store.add({})
    store.start(job.id)
    assert not store.is_cancelling(job.id)
    assert store.cancel(job.id).state is JobState.CANCELLING
    assert store.is_cancelling(job.id)
    assert not store.start(job.id)
    assert store.finish(job.id, state=JobState.CANCELLED)


def test_what_has_ended_otherwise_cannot_be_cancelled(store: JobStore) -> None:
    job = store.add({})
    store.finish(job.id, state=JobState.SUCCEEDED)
    with pytest.raises(ConflictError, match="succeeded"):
        store.cancel(job.id)


def test_the_latest_step_is_told(store: JobStore) -> None:
    job, other = store.add({}), store.add({})
    for done in (1, 2):
        store.report(job.id, step(done), step=done)
    store.report(other.id, step(4), step=9)
    progress = store.get(job.id).progress
    assert progress is not None
    assert (progress["done"], progress["total"]) == (2, 4)


def test_starts_are_counted_until_a_job_gets_further(store: JobStore) -> None:
    job = store.add({})
    assert [store.count_start(job.id) for _ in range(3)] == [1, 2, 3]
    store.report(job.id, step(1), step=5)
    assert store.count_start(job.id) == 1
    store.report(job.id, step(1), step=5)  # as far as before, and no further
    store.report(job.id, step(0), step=4)
    assert store.count_start(job.id) == 2


def test_a_device_is_kept_once_and_renewed(store: JobStore) -> None:
    store.keep_device("openvino", {"bases": ["fp32"]})
    store.keep_device("openvino", {"bases": ["fp32", "bf16"]})
    (device,) = store.devices()
    assert device["bases"] == ["fp32", "bf16"]
    assert device["seen"] > 0


def test_a_folder_of_another_version_is_refused(store: JobStore) -> None:
    migrate(store.engine)
    with store.engine.begin() as connection:
        connection.execute(SCHEMA.update().values(version=99))
    with pytest.raises(ConflictError, match="version 99"):
        migrate(store.engine)
