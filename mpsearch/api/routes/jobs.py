"""Jobs: post one, list them, follow one, cancel and delete it."""

import hashlib
import json
import shutil
from typing import Annotated, Any, Final, TypeAlias
from uuid import UUID

from fastapi import APIRouter, Body, Header, Path, Query, Response

from mpsearch.api.estimate import Estimate, estimate
from mpsearch.api.etags import NOT_MODIFIED, IfNoneMatch, etag_of, is_known
from mpsearch.api.models import JobList, JobResource, job_resource
from mpsearch.api.page_tokens import Place, place_of, token_of
from mpsearch.api.problems import documented
from mpsearch.api.service import Service, TheService
from mpsearch.api.tenant import Tenant, TheTenant
from mpsearch.core.formats import format_named
from mpsearch.errors import UnsupportedFeatureError
from mpsearch.formulation import parse_budgets
from mpsearch.jobs.adding import NewJob
from mpsearch.jobs.job import Job, JobState, Once
from mpsearch.jobs.queue import QUEUE
from mpsearch.jobs.request import JobRequest
from mpsearch.solvers import SOLVERS

router = APIRouter(tags=["jobs"])

JobId: TypeAlias = Annotated[
    UUID, Path(description="Id of a job.", examples=["01939f7e-7a5b-7c3d-9e1f-2a3b4c5d6e7f"])
]

# A look each second costs next to nothing, and nothing finishes faster.
_SECONDS_BETWEEN_LOOKS: Final = 1
_RETRY: Final = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}}
_EXAMPLES: Final = {
    "under a root": {
        "summary": "Model and data in folders that the server was started with",
        "value": {
            "model": {"root": "models", "path": "minilm"},
            "calibration": {"root": "models", "path": "train.jsonl"},
            "budgets": {"weight_bytes": "25%", "latency": "115% of fastest"},
        },
    },
    "uploaded": {
        "summary": "Model and data uploaded before",
        "value": {
            "model": {
                "files": {
                    "config.json": "sha256:" + "0" * 64,
                    "model.safetensors": "sha256:" + "1" * 64,
                    "tokenizer.json": "sha256:" + "2" * 64,
                }
            },
            "calibration": {"blob": "sha256:" + "3" * 64, "format": "jsonl"},
            "budgets": {"weight_bytes": "12MB"},
            "task": "embedding",
        },
    },
}


@router.post(
    "/v1/jobs",
    status_code=202,
    response_model_exclude_none=True,
    summary="Search a plan",
    responses={
        202: {
            "description": "The job is stored and will run.",
            "headers": {
                "Location": {"description": "The job.", "schema": {"type": "string"}},
                **_RETRY,
            },
        },
        **documented(400, 404, 413, 422),
    },
)
def post_job(
    *,
    request: Annotated[JobRequest, Body(openapi_examples=_EXAMPLES)],
    response: Response,
    service: TheService,
    tenant: TheTenant,
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1,
            max_length=255,
            description="A name of your own for this request: repeated with the same body, it "
            "is done once.",
        ),
    ] = None,
) -> JobResource:
    """Search the best plan for a model under budgets; the answer is a job to follow."""
    _check(request, tenant)
    wanted = request.model_dump(mode="json", exclude_none=True)
    job = service.poster.post(
        NewJob(
            actor=tenant.actor,
            request=wanted,
            queue=request.queue or QUEUE,
            most_active=service.settings.limits.active_jobs,
            once=None if idempotency_key is None else _once(idempotency_key, wanted),
        )
    )
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    response.headers["Retry-After"] = str(_SECONDS_BETWEEN_LOOKS)
    return job_resource(job, has_model=False)


@router.post(
    "/v1/jobs:validate",
    summary="Try a request",
    responses=documented(400, 404, 413, 422),
)
def validate_job(
    *, request: Annotated[JobRequest, Body(openapi_examples=_EXAMPLES)], tenant: TheTenant
) -> Estimate:
    """Check a request as posting it does, and estimate time and memory; nothing is kept."""
    _check(request, tenant)
    return estimate(request, sources=tenant.sources)


@router.get(
    "/v1/jobs",
    summary="List jobs",
    response_model_exclude_none=True,
    responses=documented(422),
)
def list_jobs(
    *,
    service: TheService,
    tenant: TheTenant,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    state: Annotated[JobState | None, Query(description="Only jobs in this state.")] = None,
    page_token: Annotated[
        str | None, Query(max_length=500, description="`next_page_token` of the page before.")
    ] = None,
) -> JobList:
    """Return jobs, newest first. Jobs that come meanwhile move no page."""
    secret = service.keys.pepper
    place = None
    if page_token is not None:
        place = place_of(page_token, secret=secret, actor=tenant.actor)
        state = None if place.state is None else JobState(place.state)
    before = None if place is None else place.before
    # One more than is shown: whether there is a next page.
    found = tenant.jobs.page(limit=limit + 1, before=before, state=state)
    shown = found[:limit]
    return JobList(
        jobs=[_resource(job, service) for job in shown],
        next_page_token=token_of(
            Place(before=shown[-1].id, state=state), secret=secret, actor=tenant.actor
        )
        if len(found) > limit
        else None,
    )


@router.get(
    "/v1/jobs/{job_id:uuid}",
    summary="Follow a job",
    response_model=JobResource,
    response_model_exclude_none=True,
    responses={
        200: {"description": "The job as it stands.", "headers": _RETRY},
        **NOT_MODIFIED,
        **documented(404),
    },
)
def get_job(
    *,
    job_id: JobId,
    response: Response,
    service: TheService,
    tenant: TheTenant,
    if_none_match: IfNoneMatch = None,
) -> JobResource | Response:
    """Say how far a job is, or how it ended."""
    job = tenant.jobs.get(str(job_id))
    told = {"ETag": etag_of(f"{job.id}-{job.version}"), "Cache-Control": "private, no-cache"}
    if not job.is_done:
        told["Retry-After"] = str(_SECONDS_BETWEEN_LOOKS)
    if is_known(told["ETag"], if_none_match):
        return Response(status_code=304, headers=told)
    response.headers.update(told)
    return _resource(job, service)


@router.post(
    "/v1/jobs/{job_id:uuid}:cancel",
    summary="Cancel a job",
    response_model_exclude_none=True,
    responses=documented(404, 409),
)
def cancel_job(*, job_id: JobId, service: TheService, tenant: TheTenant) -> JobResource:
    """End a job. What it has measured is kept, so posting it again goes on from there."""
    return _resource(tenant.jobs.cancel(str(job_id)), service)


@router.delete(
    "/v1/jobs/{job_id:uuid}",
    summary="Delete a job",
    status_code=204,
    responses=documented(404, 409),
)
def delete_job(*, job_id: JobId, service: TheService, tenant: TheTenant) -> Response:
    """Forget a job that has ended, with its results. What it measured stays in the cache."""
    tenant.jobs.delete(str(job_id))
    shutil.rmtree(service.settings.data.job(str(job_id)), ignore_errors=True)
    return Response(status_code=204)


def _once(key: str, wanted: dict[str, Any]) -> Once:
    digest = hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()
    return Once(key=key, digest=digest)


def _resource(job: Job, service: Service) -> JobResource:
    return job_resource(
        job, has_model=(service.settings.data.result(job.id) / "model.onnx").exists()
    )


def _check(request: JobRequest, tenant: Tenant) -> None:
    """Refuse at once what would fail later."""
    if request.budgets:
        parse_budgets(request.budgets)
    for name in (*(request.formats or ()), *(request.fixed or {}).values()):
        format_named(name)
    if request.max_drop is not None:
        parse_budgets({request.minimise: "100%"})
    check_solver(request.solver)
    tenant.sources.model(request.model)
    for source in (request.calibration, request.validation, request.test):
        if source is not None:
            tenant.sources.data(source)


def check_solver(name: str) -> None:
    """Refuse a solver that is not there.

    Raises:
        UnsupportedFeatureError: There is none of this name.
    """
    if name not in ("auto", *SOLVERS):
        raise UnsupportedFeatureError(
            f"Solver {name!r} is unknown. Expected one of auto, {', '.join(SOLVERS)}. Choose one."
        )
