"""Jobs: post one, follow it, cancel it."""

from typing import Annotated, Final, TypeAlias
from uuid import UUID

from fastapi import APIRouter, Body, Path, Response

from mpsearch.api.models import JobResource, job_resource
from mpsearch.api.problems import documented
from mpsearch.api.service import Service, TheService
from mpsearch.api.tenant import Tenant, TheTenant
from mpsearch.core.formats import format_named
from mpsearch.errors import UnsupportedFeatureError
from mpsearch.formulation import parse_budgets
from mpsearch.jobs.job import Job
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
) -> JobResource:
    """Search the best plan for a model under budgets; the answer is a job to follow."""
    _check(request, tenant)
    job = tenant.jobs.add(
        request.model_dump(mode="json", exclude_none=True),
        most_active=service.settings.limits.active_jobs,
    )
    service.enqueue(job.id, queue=job.queue)
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    response.headers["Retry-After"] = str(_SECONDS_BETWEEN_LOOKS)
    return job_resource(job, has_model=False)


@router.get(
    "/v1/jobs/{job_id:uuid}",
    summary="Follow a job",
    response_model_exclude_none=True,
    responses={
        200: {"description": "The job as it stands.", "headers": _RETRY},
        **documented(404),
    },
)
def get_job(
    *, job_id: JobId, response: Response, service: TheService, tenant: TheTenant
) -> JobResource:
    """Say how far a job is, or how it ended."""
    job = tenant.jobs.get(str(job_id))
    if not job.is_done:
        response.headers["Retry-After"] = str(_SECONDS_BETWEEN_LOOKS)
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


def _resource(job: Job, service: Service) -> JobResource:
    return job_resource(
        job, has_model=(service.settings.data.result(job.id) / "model.onnx").exists()
    )


def _check(request: JobRequest, tenant: Tenant) -> None:
    """Refuse at once what would fail later."""
    parse_budgets(request.budgets)
    for name in (*(request.formats or ()), *(request.fixed or {}).values()):
        format_named(name)
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
