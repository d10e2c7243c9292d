"""The application: routes, limits, errors and the document that describes them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.concurrency import run_in_threadpool
from starlette.middleware.trustedhost import TrustedHostMiddleware

from mpsearch.api.problems import (
    PlainErrorsAsProblems,
    answer_with_problems,
    with_problem_schema,
)
from mpsearch.api.routes import ROUTERS
from mpsearch.api.routes.blobs import router as blobs
from mpsearch.api.service import open_service
from mpsearch.api.settings import HOST, Settings

_ABOUT = (
    "Finds the best number format for each layer of a model under budgets on size, latency and "
    "quality, and proves it on the device. Post a job, follow it, download plan and model. "
    "Errors are problem details (RFC 9457)."
)


def build_app(settings: Settings) -> FastAPI:
    """Return the application; its data folder is opened when it starts."""
    application = FastAPI(
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
    for router in ROUTERS:
        limited = APIRouter(max_body_size=settings.largest_blob if router is blobs else None)
        limited.include_router(router)
        application.include_router(limited)
    answer_with_problems(application)
    # A page of another site cannot reach us by a name of its own that it points to this machine.
    application.add_middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])
    application.add_middleware(PlainErrorsAsProblems)
    _describe(application)
    return application


@asynccontextmanager
async def _lifespan(application: FastAPI) -> AsyncIterator[None]:
    service = await run_in_threadpool(open_service, application.state.settings)
    application.state.service = service
    await run_in_threadpool(service.reconcile)
    try:
        yield
    finally:
        await run_in_threadpool(service.close)


def _describe(application: FastAPI) -> None:
    """Let the OpenAPI document define our problems in place of FastAPI's own errors."""
    generate = application.openapi

    def openapi() -> dict[str, Any]:
        if application.openapi_schema is None:
            application.openapi_schema = with_problem_schema(generate())
        return application.openapi_schema

    application.openapi = openapi  # type: ignore[method-assign]  # as FastAPI documents it
