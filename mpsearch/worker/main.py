"""The worker: takes jobs off a queue, under DBOS, so that no job is lost however it ends."""

import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Final

from dbos import DBOS, DBOSConfig, WorkflowStatus

from mpsearch.jobs.data_folder import DataFolder, owned
from mpsearch.jobs.fleet import Fleet
from mpsearch.jobs.migrate import migrate
from mpsearch.jobs.queue import APPLICATION, QUEUE, SERIALIZER, WORKFLOW_SCHEMA, runners_queue
from mpsearch.jobs.store import JobStore
from mpsearch.jobs.tables import open_database
from mpsearch.worker.lease import LOST, Lease
from mpsearch.worker.shards import ShardSupervisor
from mpsearch.worker.supervise import Supervisor
from mpsearch.worker.workflows import register_workflows
from mpsearch.workflow.division import LEAST_SECONDS, Sharding

_SECONDS_BETWEEN_LOOKS: Final = 0.2
_SECONDS_BETWEEN_BEATS: Final = 5.0
# DBOS gives the jobs of an executor back to one of the same name: on SQLite there is but one.
_ONLY: Final = "local"
# Each shard costs a start of its own; a second one evens out workers that come late or go.
_SHARDS_PER_WORKER: Final = 2
# What telling why may take, before threads that still run are cut off.
_SECONDS_TO_END: Final = 2.0
_INTERRUPTED: Final = 130  # as a shell tells of Ctrl-C


def work(
    data: DataFolder,
    *,
    roots: Mapping[str, Path],
    queue: str = QUEUE,
    shard_seconds: float | None = None,
) -> None:
    """Do jobs of a queue until the process ends.

    On SQLite there is one worker per data folder, and others wait; on Postgres, any number.
    Long measurements are divided into shards of `shard_seconds` at least; without it, only
    where there are several workers to share them.
    """
    name = f"{socket.gethostname()[:30]}-{os.getpid()}-{secrets.token_hex(4)}"
    with ExitStack() as held:
        if data.database is None:
            held.enter_context(owned(data.path / "worker.lock"))
        engine = open_database(data.database_url)
        migrate(engine)
        lease = None if data.database is None else Lease(engine, name=name)
        store, fleet = JobStore(engine=engine, owner=name), Fleet(engine=engine)
        DBOS(config=_config(data, executor=_ONLY if lease is None else name))
        supervisor = Supervisor(
            data=data,
            store=store,
            roots=roots,
            sharding=lambda: sharding_of(fleet, queue=queue, seconds=shard_seconds),
        )
        shards = ShardSupervisor(data=data, store=store, roots=roots)
        register_workflows(supervisor, shards, queue=queue)
        queues = (queue, runners_queue(queue))
        DBOS.listen_queues(queues)
        held.enter_context(_ending_whole())
        DBOS.launch()
        for name_of_queue in queues:
            DBOS.register_queue(
                name_of_queue,
                worker_concurrency=1,
                polling_interval_sec=_SECONDS_BETWEEN_LOOKS,
                on_conflict="always_update",
            )
        report_devices(fleet, queue=queue)
        if lease is None:
            for other in fleet.workers():
                fleet.forget(other.name)
        while True:
            if lease is not None:
                lease.check()
                take_over(fleet, lease=lease, own=name)
            fleet.beat(name, queue=queue)
            time.sleep(_SECONDS_BETWEEN_BEATS)


def take_over(fleet: Fleet, *, lease: Lease, own: str) -> None:
    """Give the jobs of dead workers back to their queues.

    Whoever has taken a job counts, told of in the fleet or not: a worker can die before.
    """
    queues = {other.name: other.queue for other in fleet.workers()}
    holders = {job.executor_id: QUEUE for job in _taken() if job.executor_id}
    for other, queue in {**holders, **queues}.items():
        if other == own or not lease.take(other):
            continue
        try:
            for job in _taken(other):
                DBOS.resume_workflow(job.workflow_id, queue_name=job.queue_name or queue)
            fleet.forget(other)
        finally:
            lease.give_back(other)


def _taken(executor: str | None = None) -> list[WorkflowStatus]:
    """Return the workflows that somebody, or this executor, has taken off a queue."""
    return DBOS.list_workflows(
        executor_id=executor, status="PENDING", load_input=False, load_output=False
    )


def sharding_of(fleet: Fleet, *, queue: str, seconds: float | None) -> Sharding | None:
    """Return which shards pay now: none where one worker would do them all, unless asked for."""
    workers = sum(worker.queue == queue for worker in fleet.workers())
    if seconds is None and workers <= 1:
        return None
    least = LEAST_SECONDS if seconds is None else seconds
    return Sharding(most=_SHARDS_PER_WORKER * max(workers, 1), least_seconds=least)


@contextmanager
def _ending_whole() -> Iterator[None]:
    """End the process where its main thread ends.

    Python would wait for threads that do jobs, and DBOS starts nothing any more that they wait
    for: such a process holds its lock, and its jobs, for ever.
    """
    try:
        yield
    except BaseException as error:
        code = _INTERRUPTED if isinstance(error, KeyboardInterrupt) else LOST
        threading.Thread(target=_end_soon, args=(code,), name="end", daemon=True).start()
        raise


def _end_soon(code: int) -> None:
    time.sleep(_SECONDS_TO_END)
    os._exit(code)


def report_devices(fleet: Fleet, *, queue: str = QUEUE) -> None:
    """Keep what each runtime here can do."""
    from mpsearch.errors import MissingPackageError, UnsupportedFeatureError
    from mpsearch.runtimes import RUNTIMES

    for name, runtime in RUNTIMES.items():
        try:
            device = asdict(runtime.device(1))
            bases, formats = list(runtime.bases), list(runtime.formats)
        except (MissingPackageError, UnsupportedFeatureError):
            continue
        known = {"name": device["name"], "runtime": name, "queue": queue}
        known["software"] = device["software"]
        entry = name if queue == QUEUE else f"{name} {queue}"
        fleet.keep_device(entry, {**known, "bases": bases, "formats": formats})


def _config(data: DataFolder, *, executor: str) -> DBOSConfig:
    return {
        "name": APPLICATION,
        "system_database_url": data.workflows_url,
        "serializer": SERIALIZER,
        "application_version": WORKFLOW_SCHEMA,
        "executor_id": executor,
        "log_level": "WARNING",
    }
