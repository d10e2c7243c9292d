"""What a job that succeeded has left: files, handed out as they are."""

from pathlib import Path
from typing import Final

from fastapi import APIRouter
from fastapi.responses import FileResponse

from mpsearch.api.problems import documented
from mpsearch.api.routes.jobs import JobId
from mpsearch.api.service import Service, TheService
from mpsearch.core.plan import Plan
from mpsearch.core.verification import Verification
from mpsearch.errors import AbsentError, ConflictError
from mpsearch.jobs.store import JobState
from mpsearch.workflow.solve import FrontPoint

router = APIRouter(tags=["results"])

_BINARY: Final = {"type": "string", "format": "binary"}
_ERRORS: Final = documented(404, 409)
# The page carries its own styles and charts, and needs nothing else, whatever a model is called.
_REPORT_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; form-action 'none'; sandbox allow-popups",
    "X-Content-Type-Options": "nosniff",
}


@router.get(
    "/v1/jobs/{job_id:uuid}/plan",
    summary="The plan",
    response_model=Plan,
    responses=_ERRORS,
)
def get_plan(job_id: JobId, service: TheService) -> FileResponse:
    """Return the format of each layer, what was forecast, and the proof."""
    return FileResponse(_file(job_id, "plan.json", service=service), media_type="application/json")


@router.get(
    "/v1/jobs/{job_id:uuid}/frontier",
    summary="The front",
    response_model=list[FrontPoint],
    responses=_ERRORS,
)
def get_frontier(job_id: JobId, service: TheService) -> FileResponse:
    """Return the least loss at limits of the first budget's resource."""
    return FileResponse(
        _file(job_id, "frontier.json", service=service), media_type="application/json"
    )


@router.get(
    "/v1/jobs/{job_id:uuid}/verification",
    summary="What was promised and measured",
    response_model=list[Verification],
    responses=_ERRORS,
)
def get_verification(job_id: JobId, service: TheService) -> FileResponse:
    """Return each quantity of the plan, predicted and measured."""
    return FileResponse(
        _file(job_id, "verification.json", service=service), media_type="application/json"
    )


@router.get(
    "/v1/jobs/{job_id:uuid}/report",
    summary="The report",
    response_class=FileResponse,
    responses={
        200: {"description": "A page.", "content": {"text/html": {"schema": {"type": "string"}}}},
        **_ERRORS,
    },
)
def get_report(job_id: JobId, service: TheService) -> FileResponse:
    """Return the report, one self-contained page."""
    return FileResponse(
        _file(job_id, "report.html", service=service),
        media_type="text/html",
        headers=_REPORT_HEADERS,
    )


@router.get(
    "/v1/jobs/{job_id:uuid}/model",
    summary="The model",
    response_class=FileResponse,
    responses={
        200: {
            "description": "An ONNX file.",
            "content": {"application/octet-stream": {"schema": _BINARY}},
        },
        **_ERRORS,
    },
)
def get_model(job_id: JobId, service: TheService) -> FileResponse:
    """Return the executable of the plan, which `mpsearch.load` opens. Simulations have none."""
    return FileResponse(
        _file(job_id, "model.onnx", service=service),
        media_type="application/octet-stream",
        filename="model.onnx",
    )


def _file(job_id: JobId, name: str, *, service: Service) -> Path:
    """Return a file of a result."""
    job = service.store.get(str(job_id))
    path = service.settings.data.result(job.id) / name
    if job.state is not JobState.SUCCEEDED:
        raise ConflictError(
            f"Job {job.id!r} is {job.state} and has no result. Expected one that succeeded. "
            f"{'Its error says why.' if job.is_done else 'Follow it until it is done.'}"
        )
    if not path.exists():
        raise AbsentError(
            f"Job {job.id!r} has no {name}. Expected a job of a runtime that builds one; "
            "'simulation' does not. Post the job with runtime 'openvino'."
        )
    return path
