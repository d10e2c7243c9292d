"""Laws of a job's workflows under a real DBOS: who waits for whom, on which queue, how often."""

import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from mpsearch.api.service import open_service
from mpsearch.api.settings import Settings
from mpsearch.jobs.data_folder import DataFolder
from mpsearch.jobs.job import Job, JobState
from mpsearch.jobs.shards import Shard, ShardStore
from tests.unit.worker.conftest import write_root
from tests.unit.worker.test_shards import REQUEST

QUEUE = "dev:other"
# What the runner of a job does is chosen by the seed of its request.
DIVIDES, BREAKS, WAITS, IS_WHOLE = range(4)
ALL = (DIVIDES, BREAKS, WAITS, IS_WHOLE)

# A worker whose runners are a few lines of Python.
WORKER = """
import subprocess, sys
from pathlib import Path
from mpsearch.jobs.data_folder import DataFolder
from mpsearch.worker import attempts, main
folder, program, queue = Path(sys.argv[1]), *sys.argv[2:]
def start(place, *, rules, log):
    command = [sys.executable, "-S", "-c", program, str(place)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
attempts._runner = start
main.report_devices = lambda *_, **__: None
main.work(DataFolder(path=folder), roots={"r": folder}, queue=queue, shard_seconds=1e-6)
"""
# Notes when it begins and ends. Shard `b` waits for the test, a second division is another one.
RUNNER = """
import json, os, sys, time
from pathlib import Path
folder = Path(sys.argv[1])
told = json.loads((folder / "assignment.json").read_text())
kind, layers, cache = told["request"]["seed"], told["layers"], Path(told["cache"])
def note(word):
    with (cache / "log").open("a") as log:
        log.write(json.dumps([word, kind, layers, told["sharding"] is not None]) + "\\n")
note("begin")
parent = os.getppid()
if kind == 1 and layers:
    print("not a step", flush=True)
while layers and (kind == 2 or (layers == ["b"] and not (cache / "go").exists())):
    time.sleep(0.02)
    if os.getppid() != parent:
        os._exit(1)
if kind != 3 and told["sharding"]:
    again = (folder / "asked").exists()
    (folder / "asked").touch()
    shards = [["x"], ["y"]] if again else [["a"], ["b"], ["c"]]
    (folder / "shards.json").write_text(json.dumps(shards))
else:
    time.sleep(0.3)
    (folder / "outcome.json").write_text(json.dumps({"error": None}))
note("end")
"""
QUERY = "select name, queue_name, application_version, serialization from workflow_status"


@dataclass(frozen=True, kw_only=True)
class Note:
    """A runner of a job of this kind began or ended."""

    word: str
    kind: int
    layers: tuple[str, ...] | None
    may_divide: bool


@dataclass(frozen=True, kw_only=True)
class Story:
    """What became of a job of each kind: the first lost its worker while its shard `b` ran."""

    jobs: Sequence[Job]
    shards: Sequence[tuple[Shard, ...]]
    notes: Sequence[Note]
    workflows: set[tuple[str, str, str, str]]
    seconds_to_cancel: float

    def began(self, kind: int) -> list[tuple[str, ...] | None]:
        """Return which layers the runners of a job were told, in order."""
        return [note.layers for note in self.notes if (note.word, note.kind) == ("begin", kind)]


@contextmanager
def worker(data: Path) -> Iterator[None]:
    """Run a worker until the block ends; then kill it."""
    command = [sys.executable, "-c", WORKER, str(data), RUNNER, QUEUE]
    with (data / "worker.log").open("ab") as log, subprocess.Popen(command, stderr=log) as process:
        try:
            yield
        finally:
            process.kill()


def until(there: Callable[[], bool], *, data: Path) -> None:
    deadline = time.monotonic() + 120
    while not there():
        assert time.monotonic() < deadline, (data / "worker.log").read_text()
        time.sleep(0.02)


def noted(data: Path) -> list[Note]:
    log = data / "cache" / "log"
    lines = map(json.loads, log.read_text().splitlines() if log.exists() else [])
    return [
        Note(word=word, kind=kind, layers=layers and tuple(layers), may_divide=may_divide)
        for word, kind, layers, may_divide in lines
    ]


def has_begun(data: Path, *, kind: int, layer: str) -> bool:
    return any((note.kind, note.layers) == (kind, (layer,)) for note in noted(data))


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    data = tmp_path_factory.mktemp("data")
    write_root(data)
    service = open_service(Settings(data=DataFolder(path=data)))
    store, shards = service.store, ShardStore(engine=service.store.engine)
    ids = [store.add({**REQUEST, "seed": kind}, queue=QUEUE).id for kind in ALL]
    service.queue.put([(job_id, QUEUE) for job_id in ids])
    with worker(data):
        until(lambda: has_begun(data, kind=DIVIDES, layer="b"), data=data)
    (data / "cache" / "go").touch()
    with worker(data):
        until(lambda: has_begun(data, kind=WAITS, layer="a"), data=data)
        asked = time.monotonic()
        store.cancel(ids[WAITS])
        until(lambda: store.get(ids[WAITS]).is_done, data=data)
        seconds = time.monotonic() - asked
        until(lambda: all(store.get(job_id).is_done for job_id in ids), data=data)
    with closing(sqlite3.connect(data / "workflows.sqlite")) as connection:
        workflows = set(connection.execute(QUERY))
    found = Story(
        jobs=[store.get(job_id) for job_id in ids],
        shards=[shards.of(job_id) for job_id in ids],
        notes=noted(data),
        workflows=workflows,
        seconds_to_cancel=seconds,
    )
    service.close()
    return found


def test_a_divided_job_goes_on_once_all_of_its_shards_were_measured_once(story: Story) -> None:
    assert story.jobs[DIVIDES].state is JobState.SUCCEEDED
    # Only the shard whose worker was killed begins twice.
    assert story.began(DIVIDES) == [None, ("a",), ("b",), ("b",), ("c",), None]
    runs = [note for note in story.notes if note.kind == DIVIDES and note.layers is None]
    assert [note.may_divide for note in runs] == [True, True, False, False]
    assert all(shard.is_done and shard.error is None for shard in story.shards[DIVIDES])


def test_a_job_stays_divided_as_it_was(story: Story) -> None:
    for kind in (DIVIDES, BREAKS, WAITS):
        assert [shard.layers for shard in story.shards[kind]] == [("a",), ("b",), ("c",)]
    assert story.shards[IS_WHOLE] == ()


def test_a_fault_of_ours_in_a_shard_ends_its_job_with_it(story: Story) -> None:
    job = story.jobs[BREAKS]
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert "The worker failed: ValidationError" in job.error["detail"]


def test_a_cancelled_job_leaves_no_shard_that_runs_or_waits(story: Story) -> None:
    assert story.jobs[WAITS].state is JobState.CANCELLED
    assert story.seconds_to_cancel < 2  # one on a machine with nothing else to do
    assert story.began(WAITS) == [None, ("a",)]
    # The worker is free for the next job.
    assert story.jobs[IS_WHOLE].state is JobState.SUCCEEDED


def test_a_job_that_is_not_divided_has_one_runner(story: Story) -> None:
    assert story.began(IS_WHOLE) == [None]


def test_a_worker_runs_one_model_at_a_time(story: Story) -> None:
    # Those that were killed have no end.
    lost = {(DIVIDES, ("b",)), (WAITS, ("a",))} | {(BREAKS, (layer,)) for layer in ("a", "b", "c")}
    running: set[tuple[int, tuple[str, ...] | None]] = set()
    for note in story.notes:
        running -= lost
        (running.add if note.word == "begin" else running.discard)((note.kind, note.layers))
        assert len(running) <= 1


def test_a_jobs_workflows_stay_on_the_queues_of_its_workers_and_of_one_version(
    story: Story,
) -> None:
    assert story.workflows == {
        ("search", QUEUE, "1", "portable_json"),
        ("job", f"{QUEUE}:runners", "1", "portable_json"),
        ("shard", f"{QUEUE}:runners", "1", "portable_json"),
    }
