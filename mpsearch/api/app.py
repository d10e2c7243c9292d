"""The application: routes, limits, errors and the document that describes them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any, final

from fastapi import APIRouter, FastAPI
from fastapi.concurrency import run_in_threadpool
from prometheus_client import CollectorRegistry
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp

from mpsearch.api.gate import Gate
from mpsearch.api.hub import EventHub
from mpsearch.api.observed import Observed, StoredFigures
from mpsearch.api.pages.problem_pages import ProblemsAsPages
from mpsearch.api.pages.routers import PAGES
from mpsearch.api.problems import (
    PlainErrorsAsProblems,
    answer_with_problems,
    with_problem_schema,
)
from mpsearch.api.routes import ROUTERS
from mpsearch.api.routes.blobs import router as blobs
from mpsearch.api.service import open_service
from mpsearch.api.settings import LOOPBACK_HOSTS, Settings

_ABOUT = (
    "Finds the best number format for each layer of a model under budgets on size, latency and "
    "quality, and proves it on the device. Post a job, follow it, download plan and model. "
    "Errors are problem details (RFC 9457)."
)


@final
class _Application(FastAPI):
    """Answers and documents every error as a problem, those of FastAPI's own layers too.

    People get problems as pages.
    """

    def build_middleware_stack(self) -> ASGIApp:
        stack = ProblemsAsPages(PlainErrorsAsProblems(super().build_middleware_stack()))
        return Observed(stack, registry=self.state.registry)

    def openapi(self) -> dict[str, Any]:
        return with_problem_schema(super().openapi())


def build_app(settings: Settings) -> FastAPI:
    """Return the application; its data folder is opened when it starts."""
    application = _Application(
        title="mpsearch",
        version=version("mpsearch"),
        description=_ABOUT,
        lifespan=_lifespan,
        # The pages that FastAPI makes load scripts from other sites.
        docs_url=None,
        redoc_url=None,
        max_body_size=settings.largest_json,
        generate_unique_id_function=lambda route: route.name,
    )
    application.state.settings = settings
    application.state.registry = CollectorRegistry()
    for router in ROUTERS:
        limited = APIRouter(max_body_size=settings.largest_blob if router is blobs else None)
        limited.include_router(router)
        application.include_router(limited)
    for router in PAGES:
        application.include_router(router)
    answer_with_problems(application)
    application.add_middleware(Gate, settings=settings)
    if settings.is_local:
        # A page of another site cannot reach us by a name of its own that points to this machine.
        application.add_middleware(TrustedHostMiddleware, allowed_hosts=list(LOOPBACK_HOSTS))
    return application


@asynccontextmanager
async def _lifespan(application: FastAPI) -> AsyncIterator[None]:
    service = await run_in_threadpool(open_service, application.state.settings)
    application.state.service = service
    application.state.registry.register(StoredFigures(store=service.store, fleet=service.fleet))
    hub = EventHub(service.events, most_of_a_tenant=application.state.settings.limits.open_streams)
    application.state.hub = hub
    tasks = [
        asyncio.create_task(hub.run()),
        # Not waited for: jobs that wait may be many, and requests need none of it.
        asyncio.create_task(run_in_threadpool(service.reconcile)),
    ]
    try:
        yield
    finally:
        tasks[0].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await run_in_threadpool(service.close)
