"""Laws of migrations: forward and back, on folders of every version, nothing lost."""

import json
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, inspect, text

from mpsearch.errors import ConflictError
from mpsearch.jobs.events import EventLog
from mpsearch.jobs.job import JobState
from mpsearch.jobs.migrate import migrate
from mpsearch.jobs.store import JobStore
from mpsearch.jobs.tables import METADATA, open_database


def test_migrations_make_the_tables_that_the_code_names(engine: Engine) -> None:
    migrate(engine)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
    migrate(engine)


def test_a_database_of_the_first_version_keeps_its_jobs(engine: Engine) -> None:
    migrate(engine, to="0001")
    with engine.begin() as connection:
        connection.execute(text("drop table alembic_version"))  # there was none yet
        connection.execute(text("insert into schema_version values (1)"))
        for name in ("a", "b"):
            connection.execute(
                text(
                    "insert into jobs (id, state, request, created, deaths, furthest) "
                    "values (:name, 'running', '{}', 1.5, 0, 0)"
                ),
                {"name": name},
            )
            for done in (1, 2):
                data = json.dumps({"phase": "measure", "done": done})
                connection.execute(
                    text(
                        "insert into job_events (job_id, created, kind, data) "
                        "values (:job, 1.5, 'progress', :data)"
                    ),
                    {"job": name, "data": data},
                )
    migrate(engine)
    store = JobStore(engine=engine)
    job = store.get("b")
    assert (job.tenant, job.queue, job.version, job.created) == ("local", "dev:cpu", 2, 1.5)
    assert job.progress is not None
    assert job.progress["done"] == 2
    assert [event.version for event in EventLog(engine=engine).after("b", version=0)] == [1, 2]
    assert store.finish("b", state=JobState.SUCCEEDED)


def test_going_back_keeps_the_jobs(engine: Engine) -> None:
    migrate(engine)
    job = JobStore(engine=engine).add({"budgets": {}})
    migrate(engine, to="0001")
    columns = {column["name"] for column in inspect(engine).get_columns("jobs")}
    assert "tenant" not in columns
    assert inspect(engine).has_table("schema_version")
    migrate(engine)
    assert JobStore(engine=engine).get(job.id).request == {"budgets": {}}


def test_a_database_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path / 'x.sqlite'}")
    migrate(engine)
    with engine.begin() as connection:
        connection.execute(text("update alembic_version set version_num = '9999'"))
    with pytest.raises(ConflictError, match="version 9999"):
        migrate(engine)
