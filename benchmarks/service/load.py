"""Many jobs, many requests, many followers, a large upload, tables solved again and again."""

import asyncio
import hashlib
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

import httpx2
import numpy as np
from sqlalchemy import insert
from uuid_utils.compat import uuid7

from benchmarks.bar import Bar, judged
from benchmarks.rest.answers import write_tables
from benchmarks.service.api import Api, looks_right
from benchmarks.service.targets import TARGETS
from benchmarks.waiting import ending
from mpsearch.core.progress import ProgressEvent
from mpsearch.jobs.data_folder import DataFolder
from mpsearch.jobs.job import JobState
from mpsearch.jobs.migrate import migrate
from mpsearch.jobs.store import JobStore
from mpsearch.jobs.tables import JOBS, open_database
from mpsearch.worker.sandbox.probe import layers_that_hold

Result = TypeVar("Result")

_JOBS: Final = 20_000
_RATE: Final = 100.0
_SOLVE_RATE: Final = 8.0
_PIECE: Final = 2**20
_EVENTS: Final = 10
_MOST_SECONDS: Final = 300.0


def load(*, small: bool) -> Iterator[Bar]:
    """Measure on one server."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        request = looks_right(place / "root")
        store = _filled(place / "data")
        with Api(place / "data", root=place / "root") as api:
            yield _judged("start-up with 20,000 jobs", [api.seconds_to_start])
            yield _pages(api, count=100 if small else 1000)
            yield from _open_loop(api, request, seconds=3 if small else 9)
            yield _solved_again(
                api, _with_tables(place / "data", store), seconds=3 if small else 15
            )
            yield _upload(api, megabytes=100 if small else 500)
            yield from _streams(api, store, count=50 if small else 1000)
    held = layers_that_hold()
    yield _judged("layers of the sandbox that hold", [float(len(held))], layers=list(held))


def _filled(folder: Path) -> JobStore:
    folder.mkdir()
    engine = open_database(DataFolder(path=folder).database_url)
    migrate(engine)
    now = time.time()
    row = {"tenant": "local", "state": JobState.SUCCEEDED, "request": {}, "created": now}
    with engine.begin() as connection:
        rows = [{**row, "id": str(uuid7()), "version": 3, "finished": now} for _ in range(_JOBS)]
        connection.execute(insert(JOBS), rows)
    return JobStore(engine=engine)


def _pages(api: Api, *, count: int) -> Bar:
    seen: list[float] = []
    query: dict[str, Any] = {}
    with api.client() as client:
        for _ in range(count):
            start = time.perf_counter()
            page = client.get("/v1/jobs", params=query).raise_for_status().json()
            seen.append(1e3 * (time.perf_counter() - start))
            query = {"page_token": page["next_page_token"]} if "next_page_token" in page else {}
    return _tail("list page of 20,000 jobs, p99", seen[1:])


def _open_loop(api: Api, request: dict[str, Any], *, seconds: float) -> Iterator[Bar]:
    posts, gets = _ended(_both(api, request, seconds=seconds), api, awaited="every answer")
    yield _tail("POST at 100 requests/s, p99", posts)
    yield _tail("GET at 100 requests/s, p99", gets)


async def _both(
    api: Api, request: dict[str, Any], *, seconds: float
) -> tuple[list[float], list[float]]:
    async with httpx2.AsyncClient(base_url=api.url, timeout=120) as client:
        first = await client.post("/v1/jobs", json=request)
        place = first.headers["location"]
        posts = _paced(lambda: client.post("/v1/jobs", json=request), rate=_RATE, seconds=seconds)
        gets = _paced(lambda: client.get(place), rate=_RATE, seconds=seconds)
        posted, got = await asyncio.gather(posts, gets)
        return posted, got


def _with_tables(folder: Path, store: JobStore) -> str:
    """Return the id of a job that left tables of many layers."""
    job = store.add({})
    result = DataFolder(path=folder).result(job.id)
    result.mkdir(parents=True)
    write_tables(result)
    store.start(job.id)
    store.finish(job.id, state=JobState.SUCCEEDED)
    return job.id


def _solved_again(api: Api, job_id: str, *, seconds: float) -> Bar:
    solves = _solves(api, job_id, seconds=seconds)
    milliseconds = _ended(solves, api, awaited="every plan")
    return _tail("re-solve of 560 layers at 8 requests/s, p99", milliseconds)


async def _solves(api: Api, job_id: str, *, seconds: float) -> list[float]:
    # Each another budget, so that no answer is one from before.
    shares = iter(np.linspace(15, 60, int(seconds * _SOLVE_RATE) + 1))
    async with httpx2.AsyncClient(base_url=api.url, timeout=120) as client:

        def solve() -> Awaitable[httpx2.Response]:
            body = {"job": job_id, "budgets": {"weight_bytes": f"{next(shares):.2f}%"}}
            return client.post("/v1/plans:solve", json=body)

        (await solve()).raise_for_status()  # reads the tables
        return await _paced(solve, rate=_SOLVE_RATE, seconds=seconds)


async def _paced(
    once: Callable[[], Awaitable[httpx2.Response]], *, rate: float, seconds: float
) -> list[float]:
    """Return the milliseconds of each call since it was due, whatever became of those before."""
    seen: list[float] = []
    begin = time.perf_counter()

    async def call(due: float) -> None:
        answer = await once()
        seen.append(1e3 * (time.perf_counter() - due) if answer.is_success else float("inf"))

    calls = []
    for place in range(int(seconds * rate)):
        due = begin + place / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        calls.append(asyncio.create_task(call(due)))
    await asyncio.gather(*calls)
    return seen


def _upload(api: Api, *, megabytes: int) -> Bar:
    piece = np.random.default_rng(0).bytes(_PIECE)
    digest = hashlib.sha256()
    for _ in range(megabytes):
        digest.update(piece)
    with api.client() as client:
        before = api.memory()
        content = (piece for _ in range(megabytes))
        place = f"/v1/blobs/sha256:{digest.hexdigest()}"
        client.put(place, content=content).raise_for_status()
    grown = max(0.0, api.largest_memory() - before)
    return _judged("memory that an upload of 500 MB takes", [grown], megabytes=megabytes)


def _streams(api: Api, store: JobStore, *, count: int) -> Iterator[Bar]:
    job = store.add({})
    followed = _followed(api, store, job_id=job.id, count=count)
    whole = _ended(followed, api, awaited=f"the end of {count} streams")
    yield _judged("streams that got every event", [whole], streams=count)
    yield _judged("memory of the server with its streams", [api.memory()], streams=count)


async def _followed(api: Api, store: JobStore, *, job_id: str, count: int) -> float:
    """Return the share of followers who got each event once and in order."""
    limits = httpx2.Limits(max_connections=None)
    opened = asyncio.Semaphore(0)
    async with httpx2.AsyncClient(base_url=api.url, timeout=300, limits=limits) as client:

        async def follow() -> list[int]:
            async with client.stream("GET", f"/v1/jobs/{job_id}/events") as answer:
                opened.release()
                lines = [line async for line in answer.aiter_lines()]
            return [int(line.removeprefix("id: ")) for line in lines if line.startswith("id: ")]

        followers = [asyncio.create_task(follow()) for _ in range(count)]
        for _ in range(count):
            await opened.acquire()
        await asyncio.to_thread(_work, store, job_id)
        seen = await asyncio.gather(*followers)
    return sum(ids == list(range(1, _EVENTS + 4)) for ids in seen) / count


def _work(store: JobStore, job_id: str) -> None:
    store.start(job_id)
    for step in range(1, _EVENTS + 1):
        event = ProgressEvent(phase="measure", done=step, total=_EVENTS, seconds=1.0)
        store.report(job_id, event, step=step)
        time.sleep(0.1)
    store.finish(job_id, state=JobState.SUCCEEDED)


def _ended(work: Coroutine[Any, Any, Result], api: Api, *, awaited: str) -> Result:
    try:
        return asyncio.run(asyncio.wait_for(work, timeout=_MOST_SECONDS))
    except TimeoutError as error:
        told = ending(api.data / "serve.log")
        raise TimeoutError(f"After {_MOST_SECONDS:.0f} s not yet {awaited}. {told}") from error


def _tail(name: str, milliseconds: list[float]) -> Bar:
    p99 = float(np.percentile(milliseconds, 99))
    return _judged(name, [p99], median=float(np.median(milliseconds)), requests=len(milliseconds))


def _judged(name: str, values: list[float], **extra: object) -> Bar:
    return judged(name, values, target=TARGETS[name], extra=extra)
