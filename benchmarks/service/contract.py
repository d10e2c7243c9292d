"""Does a server that asks for keys answer as it says, to those with a key and those without."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from benchmarks.bar import Bar, judged
from benchmarks.rest.answers import write_tables
from benchmarks.rest.contract import contract_failures
from benchmarks.service.api import Api, looks_right
from benchmarks.service.targets import TARGETS
from mpsearch.api.document import document
from mpsearch.core.files import save_plan, write_atomically
from mpsearch.core.plan import Plan
from mpsearch.jobs.data_folder import DataFolder
from mpsearch.jobs.job import JobState
from mpsearch.jobs.keys import KeyStore, Scope, pepper_of
from mpsearch.jobs.migrate import migrate
from mpsearch.jobs.store import JobStore
from mpsearch.jobs.tables import open_database

_NAME: Final = "answers undocumented or faulty"
_SHOWN: Final = 20


def contract(*, small: bool) -> Iterator[Bar]:
    """Let schemathesis ask with a key of every scope, and then without one."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        looks_right(place / "root")
        data = DataFolder(path=place / "data")
        key, job_id = _with_a_job(data)
        described = place / "openapi.json"
        described.write_text(document())
        with Api(data.path, root=place / "root") as api:
            for who, shown in (("with a key", key), ("without a key", None)):
                found, made = contract_failures(
                    api.url,
                    job_id=job_id,
                    examples=2 if small else 50,
                    folder=place,
                    key=shown,
                    document=str(described),
                    is_whole=not small,
                )
                yield judged(
                    f"{_NAME}: {who}",
                    [len(found)],
                    target=TARGETS[_NAME],
                    extra={"requests": made, "found": found[:_SHOWN]},
                )


def _with_a_job(data: DataFolder) -> tuple[str, str]:
    """Return a key, and the id of a job of its tenant that succeeded."""
    data.path.mkdir(parents=True)
    engine = open_database(data.database_url)
    migrate(engine)
    key, text = KeyStore(engine=engine, pepper=pepper_of(data.path)).create(
        "bench", scopes=tuple(Scope)
    )
    store = JobStore(engine=engine).of(key.actor)
    job = store.add({})
    result = data.result(job.id)
    result.mkdir(parents=True)
    write_tables(result)
    save_plan(Plan(assignment={"layer.0": "w8"}), result / "plan.json")
    for name in ("frontier.json", "verification.json"):
        write_atomically(result / name, b"[]")
    write_atomically(result / "report.html", b"<!doctype html><title>x</title>")
    store.start(job.id)
    store.finish(job.id, state=JobState.SUCCEEDED)
    engine.dispose()
    return text, job.id
