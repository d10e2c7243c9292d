"""Laws of adding jobs: many at once are as many one after the other, or none."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, delete, select
from sqlalchemy.exc import IntegrityError

from mpsearch.errors import QuotaError, UsageError
from mpsearch.jobs import adding
from mpsearch.jobs.adding import Added, NewJob, add_all
from mpsearch.jobs.database import Actor
from mpsearch.jobs.events import EventLog
from mpsearch.jobs.job import Job, Once
from mpsearch.jobs.migrate import migrate
from mpsearch.jobs.store import JobStore
from mpsearch.jobs.tables import AUDIT, IDEMPOTENCY, JOB_EVENTS, JOBS, open_database

WISHES = st.builds(
    lambda tenant, most, once: NewJob(
        actor=Actor(tenant=tenant, name="key"), request={"a": 1}, most_active=most, once=once
    ),
    st.sampled_from("ab"),
    st.sampled_from((None, 1, 3)),
    st.none() | st.builds(Once, key=st.sampled_from("kl"), digest=st.sampled_from("de")),
)


def wish(tenant: str = "a", *, most: int | None = None, once: Once | None = None) -> NewJob:
    return NewJob(actor=Actor(tenant=tenant, name="key"), request={}, most_active=most, once=once)


def kinds(added: list[Added]) -> list[str | int]:
    """Return the type of each refusal, and for each job which of the different ones it is."""
    ids = [job.id for job in added if isinstance(job, Job)]
    first = list(dict.fromkeys(ids))
    return [first.index(a.id) if isinstance(a, Job) else type(a).__name__ for a in added]


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> tuple[Engine, Engine]:
    folder = tmp_path_factory.mktemp("twins")
    engines = [open_database(f"sqlite:///{folder / name}") for name in ("one", "two")]
    for engine in engines:
        migrate(engine)
    return engines[0], engines[1]


@given(wishes=st.lists(WISHES, min_size=1, max_size=12), cut=st.integers(0, 12))
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_many_at_once_are_as_many_one_after_the_other(
    twins: tuple[Engine, Engine], wishes: list[NewJob], cut: int
) -> None:
    together, apart = twins
    for engine in twins:
        with engine.begin() as connection:
            for table in (IDEMPOTENCY, JOB_EVENTS, JOBS):
                connection.execute(delete(table))
    parts = [part for part in (wishes[:cut], wishes[cut:]) if part]
    seen = kinds([added for part in parts for added in add_all(together, part)])
    assert seen == kinds([add_all(apart, [new])[0] for new in wishes])
    stored = [len(JobStore(engine=engine).unfinished()) for engine in twins]
    assert stored == [len({kind for kind in seen if isinstance(kind, int)})] * 2


def test_what_is_added_is_stored_noted_named_and_audited(engine: Engine) -> None:
    migrate(engine)
    once = Once(key="k", digest="d")
    added = add_all(engine, [wish("a"), wish("b", once=once), wish("a")])
    store = JobStore(engine=engine)
    assert store.page(limit=9) == added[::-1]
    for job in added:
        assert isinstance(job, Job)
        (event,) = EventLog(engine=engine).after(job.id, version=0)
        assert (event.version, event.kind, event.data) == (1, "state", {"state": "queued"})
    with engine.connect() as connection:
        audited = connection.execute(select(AUDIT).order_by(AUDIT.c.id)).all()
        (named,) = connection.execute(select(IDEMPOTENCY)).all()
    assert [(row.tenant, row.action, row.target) for row in audited] == [
        (job.tenant, "post", f"jobs/{job.id}") for job in added if isinstance(job, Job)
    ]
    assert isinstance(added[1], Job)
    assert (named.tenant, named.key, named.digest, named.job_id) == ("b", "k", "d", added[1].id)


def test_those_at_once_count_against_each_other(engine: Engine) -> None:
    migrate(engine)
    once = Once(key="k", digest="d")
    one, again, other, second, third, foreign = add_all(
        engine,
        [
            wish(once=once, most=2),
            wish(once=once, most=2),
            wish(once=Once(key="k", digest="e"), most=2),
            wish(most=2),
            wish(most=2),
            wish("b", most=2),
        ],
    )
    assert one == again
    assert isinstance(other, UsageError)
    assert isinstance(second, Job)
    assert isinstance(third, QuotaError)
    assert isinstance(foreign, Job)
    # A name that is known stays known, however many there are.
    assert add_all(engine, [wish(once=once, most=0)]) == (one,)


def test_where_the_database_fails_none_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_database(f"sqlite:///{tmp_path / 'jobs.sqlite'}")
    migrate(engine)
    monkeypatch.setattr(adding, "uuid7", lambda: "the same")
    with pytest.raises(IntegrityError):
        add_all(engine, [wish("a"), wish("b")])
    assert JobStore(engine=engine).page(limit=9) == ()
