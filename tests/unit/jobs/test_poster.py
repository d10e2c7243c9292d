"""Laws of posting: what was answered survives kill -9, whoever posts beside it."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import pytest

from mpsearch.jobs.adding import NewJob
from mpsearch.jobs.data_folder import DataFolder
from mpsearch.jobs.database import LOOPBACK
from mpsearch.jobs.job_queue import JobQueue
from mpsearch.jobs.migrate import migrate
from mpsearch.jobs.poster import Poster
from mpsearch.jobs.queue import migrate_queue
from mpsearch.jobs.store import JobStore
from mpsearch.jobs.tables import open_database

# Posts from eight threads for ever, and says each id once it has it.
_POSTING: Final = """
import sys, threading
from pathlib import Path
from mpsearch.jobs.adding import NewJob
from mpsearch.jobs.data_folder import DataFolder
from mpsearch.jobs.database import LOOPBACK
from mpsearch.jobs.job_queue import JobQueue
from mpsearch.jobs.poster import Poster
from mpsearch.jobs.tables import open_database
data = DataFolder(path=Path(sys.argv[1]))
engine, queue = open_database(data.database_url), JobQueue(data.workflows_url)
poster = Poster(engine=engine, queue=queue)
def post():
    while True:
        job = poster.post(NewJob(actor=LOOPBACK, request={}))
        sys.stdout.write(job.id + chr(10))
        sys.stdout.flush()
for _ in range(8):
    threading.Thread(target=post).start()
"""


@pytest.fixture
def data(tmp_path: Path) -> DataFolder:
    folder = DataFolder(path=tmp_path)
    migrate(open_database(folder.database_url))
    migrate_queue(folder.workflows_url)
    return folder


@pytest.mark.parametrize("seconds", [0.05, 0.3, 1.0])
def test_what_was_answered_is_stored_and_queued_after_kill_9(
    data: DataFolder, tmp_path: Path, seconds: float
) -> None:
    told = tmp_path / "told"
    with told.open("wb") as file:
        process = subprocess.Popen([sys.executable, "-c", _POSTING, str(data.path)], stdout=file)
    while not told.stat().st_size:
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(seconds)
    process.kill()
    process.wait()
    # What follows the last end of line was cut off.
    answered = set(told.read_text().rpartition(chr(10))[0].split())
    stored = {
        job_id for job_id, _ in JobStore(engine=open_database(data.database_url)).unfinished()
    }
    queue = JobQueue(data.workflows_url)
    queued = {job.workflow_id for job in queue.client.list_workflows()}
    queue.close()
    assert answered
    assert answered <= queued <= stored


def test_a_job_is_answered_once_it_is_queued(
    data: DataFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, queue = open_database(data.database_url), JobQueue(data.workflows_url)
    poster = Poster(engine=engine, queue=queue)

    def full(_: object) -> None:
        raise OSError("full")

    with monkeypatch.context() as patch:
        patch.setattr(JobQueue, "put", full)
        with pytest.raises(TypeError):
            poster.post(NewJob(actor=LOOPBACK, request={}))
    job = poster.post(NewJob(actor=LOOPBACK, request={}))
    assert [found.workflow_id for found in queue.client.list_workflows()] == [job.id]
    queue.close()
