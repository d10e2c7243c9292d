"""Laws of jobs: states only move forward, and each change is noted once."""

from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.exc import DatabaseError

from mpsearch.core.progress import ProgressEvent
from mpsearch.errors import AbsentError, ConflictError, QuotaError, UsageError
from mpsearch.jobs.database import Actor
from mpsearch.jobs.events import EventLog
from mpsearch.jobs.fleet import Fleet
from mpsearch.jobs.job import JobState, Once
from mpsearch.jobs.migrate import migrate
from mpsearch.jobs.store import JobStore
from mpsearch.jobs.tables import AUDIT, open_database


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
    events = EventLog(engine=store.engine).after(job_id, version=0)
    assert [event.version for event in events] == list(range(1, len(events) + 1))
    assert store.get(job_id).version == len(events)
    return [event.data["state"] for event in events if event.kind == "state"]


def test_a_job_is_kept_as_it_was_posted(store: JobStore, tmp_path: Path) -> None:
    job = store.add({"budgets": {"latency": "4ms"}})
    assert opened(tmp_path).get(job.id) == job
    assert not job.is_done


def test_ids_are_ordered_by_time(store: JobStore) -> None:
    ids = [store.add({}).id for _ in range(50)]
    assert ids == sorted(set(ids))
    assert store.unfinished() == tuple((name, "dev:cpu") for name in ids)


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
    assert store.goes_on(job.id)
    assert store.cancel(job.id).state is JobState.CANCELLING
    assert not store.goes_on(job.id)
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


def test_starts_at_the_same_step_are_counted(store: JobStore) -> None:
    job = store.add({})
    assert [store.count_start(job.id) for _ in range(3)] == [1, 2, 3]
    store.report(job.id, step(1), step=5)  # who got there has tried what comes next
    assert store.count_start(job.id) == 2
    store.report(job.id, step(1), step=5)  # as far as before, and no further
    store.report(job.id, step(0), step=4)
    assert store.count_start(job.id) == 3


def test_a_device_is_kept_once_and_renewed(store: JobStore) -> None:
    fleet = Fleet(engine=store.engine)
    fleet.keep_device("openvino", {"bases": ["fp32"]})
    fleet.keep_device("openvino", {"bases": ["fp32", "bf16"]})
    (device,) = fleet.devices()
    assert device["bases"] == ["fp32", "bf16"]
    assert device["seen"] > 0


def test_a_worker_is_known_until_it_is_forgotten(store: JobStore) -> None:
    fleet = Fleet(engine=store.engine)
    for _ in range(2):
        fleet.beat("a", queue="dev:cpu")
    fleet.beat("b", queue="dev:gpu")
    assert [worker.queue for worker in fleet.workers()] == ["dev:cpu", "dev:gpu"]
    fleet.forget("a")
    assert [worker.name for worker in fleet.workers()] == ["b"]


def test_a_tenant_sees_and_changes_its_own_jobs_only(store: JobStore) -> None:
    ours, theirs = (store.of(Actor(tenant=name, name="k")) for name in ("a", "b"))
    job = ours.add({})
    for act in (theirs.get, theirs.cancel, theirs.delete):
        with pytest.raises(AbsentError, match="not known"):
            act(job.id)
    assert theirs.page(limit=9) == ()
    assert theirs.unfinished() == ()
    assert ours.get(job.id).state is JobState.QUEUED
    assert ours.cancel(job.id).state is JobState.CANCELLED


def test_pages_follow_each_other_without_gap_or_overlap(store: JobStore) -> None:
    ids = [store.add({}).id for _ in range(7)]
    seen: list[str] = []
    while page := store.page(limit=3, before=seen[-1] if seen else None):
        seen += [job.id for job in page]
    assert seen == ids[::-1]
    store.cancel(ids[2])
    assert [job.id for job in store.page(limit=9, state=JobState.CANCELLED)] == [ids[2]]


def test_a_request_that_is_repeated_makes_one_job(store: JobStore) -> None:
    once = Once(key="k", digest="d")
    assert store.add({}, once=once).id == store.add({}, once=once).id
    other = store.of(Actor(tenant="b", name="k"))
    assert other.add({}, once=once).id != store.add({}, once=once).id
    with pytest.raises(UsageError, match="another request"):
        store.add({}, once=Once(key="k", digest="other"))
    assert len(store.page(limit=9)) == 2


def test_a_tenant_has_no_more_active_jobs_than_allowed(store: JobStore) -> None:
    store.of(Actor(tenant="b", name="k")).add({})
    first, _ = (store.add({}, most_active=2) for _ in range(2))
    with pytest.raises(QuotaError, match="2 jobs wait or run"):
        store.add({}, most_active=2)
    store.cancel(first.id)
    store.add({}, most_active=2)
    assert len(store.unfinished()) == 3


def test_only_what_has_ended_is_deleted_and_then_wholly(store: JobStore) -> None:
    job = store.add({}, once=Once(key="k", digest="d"))
    with pytest.raises(ConflictError, match="Cancel it first"):
        store.delete(job.id)
    store.cancel(job.id)
    store.delete(job.id)
    assert EventLog(engine=store.engine).after(job.id, version=0) == ()
    assert store.add({}, once=Once(key="k", digest="d")).id != job.id


def test_a_worker_that_lost_a_job_writes_no_more(store: JobStore) -> None:
    first, second = (replace(store, owner=name) for name in ("one", "two"))
    job = store.add({})
    first.claim(job.id)
    assert first.start(job.id)
    first.report(job.id, step(1), step=1)
    second.claim(job.id)
    before = store.get(job.id)
    assert not first.goes_on(job.id)
    first.report(job.id, step(2), step=2)
    assert not first.finish(job.id, state=JobState.FAILED)
    assert store.get(job.id) == before
    assert second.goes_on(job.id)
    assert second.finish(job.id, state=JobState.SUCCEEDED)


def test_what_callers_do_is_noted_and_stays(store: JobStore) -> None:
    ours = store.of(Actor(tenant="a", name="key"))
    job = ours.add({})
    ours.cancel(job.id)
    ours.delete(job.id)
    with store.engine.connect() as connection:
        noted = connection.execute(select(AUDIT)).all()
    assert [(row.tenant, row.actor, row.action) for row in noted] == [
        ("a", "key", action) for action in ("post", "cancelled", "delete")
    ]
    for change in (AUDIT.delete(), AUDIT.update().values(actor="somebody else")):
        with pytest.raises(DatabaseError, match="only grows"), store.engine.begin() as connection:
            connection.execute(change)
