"""Laws of shards: they end with their job, die alone, and tell the job how far all are."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mpsearch.core.progress import ProgressEvent
from mpsearch.jobs.data_folder import owned
from mpsearch.jobs.events import EventLog
from mpsearch.jobs.fleet import Fleet
from mpsearch.jobs.job import Job, JobState
from mpsearch.sensitivity.request import PHASE
from mpsearch.worker.assignment import load_assignment
from mpsearch.worker.attempts import GIVE_UP_AFTER
from mpsearch.worker.divided import load_shards, save_shards
from mpsearch.worker.duties import MEASURING
from mpsearch.worker.main import sharding_of
from mpsearch.worker.shards import ShardSupervisor
from mpsearch.worker.supervise import DIVIDED, Supervisor
from mpsearch.workflow.division import LEAST_SECONDS, Sharding

REQUEST = {
    "model": {"root": "r", "path": "model"},
    "calibration": {"root": "r", "path": "data.jsonl"},
    "budgets": {"weight_bytes": "25%"},
}
KILL = "os.kill(os.getpid(), signal.SIGKILL)\n"
LAYERS = (("a", "b"), ("c",))
DIVIDE = '(folder / "shards.json").write_text(json.dumps([["a", "b"], ["c"]]))\n'
# Steps in the phase that the job tells of.
MEASURE = (
    "def measured(done):\n"
    f'    print(json.dumps({{"phase": "{MEASURING}", "done": done, "total": 4, "seconds": 1.0}}),'
    " flush=True)\n"
)


@pytest.fixture
def job(supervisor: Supervisor) -> Job:
    """Return a job that runs and was divided."""
    posted = supervisor.store.add(REQUEST)
    supervisor.store.claim(posted.id)
    supervisor.store.start(posted.id)
    supervisor.shards.add(posted.id, LAYERS)
    return supervisor.store.get(posted.id)


def shards_of(supervisor: Supervisor, *, owner: str = "two") -> ShardSupervisor:
    """Return a supervisor of shards that belongs to another worker."""
    store = replace(supervisor.store, owner=owner)
    return ShardSupervisor(data=supervisor.data, store=store, roots=supervisor.roots)


def error_of(supervisor: Supervisor, job: Job) -> dict[str, str]:
    found = supervisor.store.get(job.id).error
    assert found is not None
    return dict(found)


def test_the_phase_that_is_told_is_that_of_the_measurement() -> None:
    assert MEASURING == PHASE


def test_a_job_whose_runner_asks_for_shards_is_divided_once(
    supervisor: Supervisor, runs: Callable[[str], None]
) -> None:
    runs("report(1)\n" + DIVIDE)
    posted = supervisor.store.add(REQUEST)
    may = replace(supervisor, sharding=lambda: Sharding(most=2, least_seconds=3.0))
    assert may.run(posted.id, may_divide=True) == DIVIDED
    assert may.run(posted.id, may_divide=True) == DIVIDED
    folder = supervisor.data.job(posted.id)
    assert (folder / "starts").read_text() == "x"
    assert load_assignment(folder).sharding == Sharding(most=2, least_seconds=3.0)
    assert tuple(shard.layers for shard in supervisor.shards.of(posted.id)) == LAYERS
    assert supervisor.store.get(posted.id).state is JobState.RUNNING


def test_after_its_shards_a_job_is_not_divided_again(
    supervisor: Supervisor, job: Job, runs: Callable[[str], None]
) -> None:
    save_shards(LAYERS, folder_of(supervisor, job))
    runs("end()")
    may = replace(supervisor, sharding=lambda: Sharding(most=2))
    assert may.run(job.id) == "succeeded"
    assert load_assignment(supervisor.data.job(job.id)).sharding is None


def folder_of(supervisor: Supervisor, job: Job) -> Path:
    folder = supervisor.data.job(job.id)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.mark.parametrize(
    "text", ["{}", "[]", "[[]]", '[["a"], 3]', "[", '[["' + "a" * 2000 + '"]]']
)
def test_shards_that_are_malformed_end_the_job(
    supervisor: Supervisor, runs: Callable[[str], None], text: str
) -> None:
    runs(f"(folder / 'shards.json').write_text({text!r})")
    posted = supervisor.store.add(REQUEST)
    assert supervisor.run(posted.id, may_divide=True) == "failed"
    assert supervisor.shards.of(posted.id) == ()


def test_shards_survive_their_file(tmp_path: Path) -> None:
    assert load_shards(tmp_path) is None
    save_shards(LAYERS, tmp_path)
    assert load_shards(tmp_path) == LAYERS


def test_a_shard_is_told_its_layers_and_its_job_goes_on_when_all_have_ended(
    supervisor: Supervisor, job: Job, runs: Callable[[str], None]
) -> None:
    runs("end()")
    supervisor.store.count_start(job.id)
    others = shards_of(supervisor)
    others.run(job.id, number=1)
    waiting = threading.Thread(target=supervisor.wait, args=(job.id,))
    waiting.start()
    time.sleep(0.6)
    assert waiting.is_alive()
    others.run(job.id, number=0)
    waiting.join(timeout=20)
    assert supervisor.wait(job.id) == JobState.RUNNING
    folder = supervisor.data.job(job.id) / "shards"
    assert [load_assignment(folder / name).layers for name in "01"] == list(LAYERS)
    # The runners that follow are counted anew.
    assert supervisor.store.count_start(job.id) == 1
    assert not list((supervisor.data.path / "inputs").glob("*"))


def test_a_shard_that_has_ended_is_not_run_again(
    supervisor: Supervisor, job: Job, runs: Callable[[str], None]
) -> None:
    runs("end()")
    others = shards_of(supervisor)
    others.run(job.id, number=0)
    others.run(job.id, number=0)
    folder = supervisor.data.job(job.id) / "shards" / "0"
    assert (folder / "starts").read_text() == "x"


def test_the_job_tells_how_much_of_all_shards_is_measured(
    supervisor: Supervisor, job: Job, runs: Callable[[str], None]
) -> None:
    runs(MEASURE + "report(1)\nmeasured(2)\ntime.sleep(.15)\nmeasured(4)\nend()")
    others = shards_of(supervisor)
    for number in (0, 1):
        others.run(job.id, number=number)
    events = EventLog(engine=supervisor.store.engine).after(job.id, version=0)
    assert [event.version for event in events] == list(range(1, len(events) + 1))
    told = [event.data for event in events if event.kind == "progress"]
    assert {event["phase"] for event in told} == {MEASURING}
    assert [(event["done"], event["total"]) for event in told] == [(1, 3), (2, 3), (2, 3), (3, 3)]
    assert told[-1]["seconds_left"] == 0.0
    assert supervisor.store.get(job.id).progress == told[-1]


def test_nothing_is_told_of_a_job_that_shall_end(supervisor: Supervisor, job: Job) -> None:
    supervisor.store.cancel(job.id)
    before = supervisor.store.get(job.id)
    event = ProgressEvent(phase=MEASURING, done=1, total=2, seconds=1.0)
    supervisor.shards.report(job.id, event, number=0)
    assert supervisor.store.get(job.id) == before


def test_a_killed_shard_is_started_again_and_given_up_after_three_at_one_step(
    supervisor: Supervisor, job: Job, runs: Callable[[str], None]
) -> None:
    others = shards_of(supervisor)
    runs(f"report(1)\nif start < 3: {KILL}\nend()")
    others.run(job.id, number=0)
    runs(f"report(1)\n{KILL}")
    others.run(job.id, number=1)
    starts = [supervisor.data.job(job.id) / "shards" / name / "starts" for name in "01"]
    assert [len(path.read_text()) for path in starts] == [3, GIVE_UP_AFTER]
    assert supervisor.wait(job.id) == JobState.FAILED
    error = error_of(supervisor, job)
    assert error["type"].endswith(":runner-died")
    assert "the shard from layer 'c' to 'c'" in error["detail"]
    assert "the last one by signal SIGKILL" in error["detail"]


def test_a_shard_that_kills_its_worker_is_given_up(
    supervisor: Supervisor, job: Job, runs: Callable[[str], None]
) -> None:
    runs("end()")
    for _ in range(GIVE_UP_AFTER):  # each time a worker began, and was no more
        supervisor.shards.count_start(job.id, number=0)
    shards_of(supervisor).run(job.id, number=0)
    assert supervisor.wait(job.id) == JobState.FAILED
    assert "and their worker with them" in error_of(supervisor, job)["detail"]
    assert not (supervisor.data.job(job.id) / "shards" / "0" / "starts").exists()


def test_shards_that_get_further_are_started_as_often_as_needed(
    supervisor: Supervisor, job: Job, runs: Callable[[str], None]
) -> None:
    more = GIVE_UP_AFTER + 2
    runs(f"[(report(9), time.sleep(0.02)) for _ in range(start)]\nif start < {more}: {KILL}\nend()")
    shards_of(supervisor).run(job.id, number=0)
    assert supervisor.shards.get(job.id, number=0).error is None


def test_the_error_of_a_shard_is_that_of_its_job_and_ends_the_others(
    supervisor: Supervisor, job: Job, runs: Callable[[str], None]
) -> None:
    runs('end({"type": "t", "title": "x", "detail": "d"})')
    others = shards_of(supervisor)
    others.run(job.id, number=0)
    assert supervisor.wait(job.id) == JobState.FAILED
    assert error_of(supervisor, job)["detail"] == "d"
    others.run(job.id, number=1)
    assert not (supervisor.data.job(job.id) / "shards" / "1" / "starts").exists()


def test_cancelling_ends_waiting_and_running_shards_within_a_second(
    supervisor: Supervisor, job: Job, runs: Callable[[str], None]
) -> None:
    runs("report(1)\ntime.sleep(600)")
    others = shards_of(supervisor)
    # Daemons: one that does not end fails the test, and holds nobody up.
    working = threading.Thread(target=others.run, args=(job.id,), kwargs={"number": 0}, daemon=True)
    waiting = threading.Thread(target=supervisor.wait, args=(job.id,), daemon=True)
    working.start()
    waiting.start()
    log = supervisor.data.job(job.id) / "shards" / "0" / "starts"
    while not log.exists():
        time.sleep(0.01)
    asked = time.monotonic()
    replace(supervisor.store, owner=None).cancel(job.id)
    working.join(timeout=60)
    waiting.join(timeout=60)
    assert time.monotonic() - asked < 2  # one on a machine with nothing else to do
    assert supervisor.store.get(job.id).state is JobState.CANCELLED
    others.run(job.id, number=1)
    assert not (supervisor.data.job(job.id) / "shards" / "1").exists()


def test_the_shard_of_a_frozen_worker_is_not_measured_beside_it(
    supervisor: Supervisor, job: Job, runs: Callable[[str], None]
) -> None:
    runs("end()")
    folder = supervisor.data.job(job.id) / "shards" / "0"
    others = shards_of(supervisor)
    with owned(folder / "lock"):
        working = threading.Thread(target=others.run, args=(job.id,), kwargs={"number": 0})
        working.start()
        time.sleep(1.5)
        assert working.is_alive()
        assert not (folder / "starts").exists()
    working.join(timeout=60)
    assert (folder / "starts").read_text() == "x"


def test_a_deleted_job_leaves_no_shards(supervisor: Supervisor, job: Job) -> None:
    supervisor.store.finish(job.id, state=JobState.CANCELLED)
    supervisor.store.delete(job.id)
    assert supervisor.shards.of(job.id) == ()


def test_one_worker_divides_nothing_unless_it_is_asked_to(supervisor: Supervisor) -> None:
    fleet = Fleet(engine=supervisor.store.engine)
    assert sharding_of(fleet, queue="dev:cpu", seconds=None) is None
    assert sharding_of(fleet, queue="dev:cpu", seconds=1.5) == Sharding(most=2, least_seconds=1.5)
    for name, queue in (("one", "dev:cpu"), ("else", "dev:h200")):
        fleet.beat(name, queue=queue)
    assert sharding_of(fleet, queue="dev:cpu", seconds=None) is None
    fleet.beat("two", queue="dev:cpu")
    found = sharding_of(fleet, queue="dev:cpu", seconds=None)
    assert found == Sharding(most=4, least_seconds=LEAST_SECONDS)
    assert LEAST_SECONDS == 10.0
