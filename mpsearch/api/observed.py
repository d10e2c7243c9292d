"""Every request has an id, is counted, timed, and logged once it has been answered."""

import logging
import re
import time
from collections.abc import Iterable
from typing import Any, Final, final

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uuid_utils.compat import uuid7

from mpsearch.jobs.fleet import Fleet
from mpsearch.jobs.job import JobState
from mpsearch.jobs.logs import ACCESS
from mpsearch.jobs.store import JobStore

_LOG: Final = logging.getLogger(ACCESS)
# A person at a terminal wants to see what is wrong, and not each answer.
_LOG.setLevel(logging.WARNING)
_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HEADER: Final = "x-request-id"
_BUCKETS: Final = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60)
# A worker tells that it is alive every few seconds.
SECONDS_OF_LIFE: Final = 30.0


@final
class Observed:
    """Middleware around everything; a caller may choose the id, if it is short and plain."""

    def __init__(self, app: ASGIApp, *, registry: CollectorRegistry) -> None:
        self._app = app
        labels = ("method", "route", "status")
        self._count = Counter("mpsearch_requests", "Requests.", labels, registry=registry)
        self._seconds = Histogram(
            "mpsearch_request_seconds",
            "Until an answer begins.",
            ("route",),
            registry=registry,
            buckets=_BUCKETS,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: PLR0917  # as ASGI calls it
        """Pass a request on, and note what became of it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, seen = time.perf_counter(), {"status": 500}
        shown = Headers(scope=scope).get(_HEADER, "")
        request_id = shown if _ID.fullmatch(shown) else str(uuid7())

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                seen["status"] = message["status"]
                MutableHeaders(scope=message)[_HEADER] = request_id
                self._note(scope, status=message["status"], seconds=time.perf_counter() - start)
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            await self._app(scope, receive, noting)

    def _note(self, scope: Scope, *, status: int, seconds: float) -> None:
        # Its template, or each id would be a name of its own; strangers choose no names.
        path = getattr(scope.get("route"), "path", "none")
        self._count.labels(scope["method"], path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)
        about: dict[str, Any] = {"status": status, "milliseconds": round(1e3 * seconds, 1)}
        job_id = scope.get("path_params", {}).get("job_id")
        if job_id is not None:
            about["job_id"] = str(job_id)
        actor = scope.get("state", {}).get("actor")
        if actor is not None:
            about |= {"tenant": actor.tenant, "key_id": actor.name}
        _LOG.info("%s %s", scope["method"], path, extra=about)


@final
class StoredFigures(Collector):
    """What the database knows, read whenever somebody asks for the metrics."""

    def __init__(self, *, store: JobStore, fleet: Fleet) -> None:
        self._store = store
        self._fleet = fleet

    def collect(self) -> Iterable[Metric]:
        """Yield jobs by state, and workers that are alive."""
        jobs = GaugeMetricFamily("mpsearch_jobs", "Jobs by state.", labels=["state"])
        counts = self._store.counts()
        for state in JobState:
            jobs.add_metric([state], counts.get(state, 0))
        yield jobs
        now = time.time()
        alive = [w.queue for w in self._fleet.workers() if now - w.seen < SECONDS_OF_LIFE]
        workers = GaugeMetricFamily("mpsearch_workers", "Workers alive.", labels=["queue"])
        for queue in sorted(set(alive)):
            workers.add_metric([queue], alive.count(queue))
        yield workers
