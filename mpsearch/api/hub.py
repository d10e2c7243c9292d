"""News of jobs for everybody who follows one: the database is asked once, not once for each."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Final, TypeAlias, final

from fastapi.concurrency import run_in_threadpool

from mpsearch.errors import QuotaError
from mpsearch.jobs.events import EventLog, JobEvent
from mpsearch.jobs.job import DONE

_LOG: Final = logging.getLogger("mpsearch.api")
_SECONDS_BETWEEN_LOOKS: Final = 0.25

# None: the job is no longer there.
_News: TypeAlias = "asyncio.Queue[tuple[JobEvent, ...] | None]"


@final
class EventHub:
    """Looks which followed jobs have changed, and hands the new events to their followers."""

    def __init__(self, log: EventLog, *, most_of_a_tenant: int) -> None:
        self._log = log
        self._most = most_of_a_tenant
        self._followers: dict[str, set[_News]] = {}
        self._known: dict[str, int] = {}
        self._open: dict[str, int] = {}

    async def run(self) -> None:
        """Look for news until cancelled; a database that fails is asked again."""
        while True:
            try:
                await self._look()
            except Exception:  # noqa: BLE001  # followers must outlive a restart of the database
                _LOG.exception("Events could not be read. They are read again.")
            await asyncio.sleep(_SECONDS_BETWEEN_LOOKS)

    @contextmanager
    def admitted(self, tenant: str) -> Iterator[None]:
        """Count a follower of a tenant.

        Raises:
            QuotaError: There are as many as it may have.
        """
        if self._open.get(tenant, 0) >= self._most:
            raise QuotaError(
                f"{self._most} streams are open. Expected fewer before another is opened. Close "
                "one."
            )
        self._open[tenant] = self._open.get(tenant, 0) + 1
        try:
            yield
        finally:
            self._open[tenant] -= 1
            if not self._open[tenant]:
                del self._open[tenant]

    async def follow(self, job_id: str, *, after: int) -> AsyncIterator[tuple[JobEvent, ...]]:
        """Yield what happens to a job after a version, in order and each once, until its end."""
        news: _News = asyncio.Queue()
        self._followers.setdefault(job_id, set()).add(news)
        try:
            if job_id not in self._known:
                found = await run_in_threadpool(self._log.versions, [job_id])
                self._known.setdefault(job_id, found.get(job_id, 0))
            # Read only now: what comes later than this is news.
            batch = await run_in_threadpool(self._log.after, job_id, version=after)
            while True:
                fresh = tuple(event for event in batch if event.version > after)
                if fresh:
                    after = fresh[-1].version
                    yield fresh
                if any(is_last(event) for event in fresh):
                    return
                received = await news.get()
                if received is None:
                    return
                batch = received
        finally:
            self._leave(job_id, news)

    def _leave(self, job_id: str, news: _News) -> None:
        followers = self._followers[job_id]
        followers.discard(news)
        if not followers:
            del self._followers[job_id]
            self._known.pop(job_id, None)

    async def _look(self) -> None:
        followed = [job_id for job_id in self._followers if job_id in self._known]
        if not followed:
            return
        versions = await run_in_threadpool(self._log.versions, followed)
        for job_id in followed:
            known = self._known.get(job_id)
            if known is None:  # the last follower has left meanwhile
                continue
            if job_id not in versions:
                self._tell(job_id, None)
            elif versions[job_id] > known:
                events = await run_in_threadpool(self._log.after, job_id, version=known)
                if events and job_id in self._known:
                    self._known[job_id] = events[-1].version
                    self._tell(job_id, events)

    def _tell(self, job_id: str, events: tuple[JobEvent, ...] | None) -> None:
        for news in self._followers.get(job_id, ()):
            news.put_nowait(events)


def is_last(event: JobEvent) -> bool:
    """Return whether nothing happens to a job after an event."""
    return event.kind == "state" and event.data["state"] in DONE
