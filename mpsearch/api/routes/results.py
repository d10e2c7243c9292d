"""What a job that succeeded has left: files, handed out as they are."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, final

from fastapi import APIRouter, Depends, Response
from fastapi.responses import FileResponse

from mpsearch.api.etags import NOT_MODIFIED, IfNoneMatch, etag_of, is_known
from mpsearch.api.models import (
    CostResource,
    SensitivityResource,
    cost_resource,
    sensitivity_resource,
)
from mpsearch.api.problems import documented
from mpsearch.api.routes.jobs import JobId
from mpsearch.api.service import TheService
from mpsearch.api.tenant import TheTenant
from mpsearch.core.files import to_json
from mpsearch.core.plan import Plan
from mpsearch.core.verification import Verification
from mpsearch.errors import AbsentError, ConflictError
from mpsearch.jobs.job import JobState
from mpsearch.workflow.solve import FrontPoint

router = APIRouter(tags=["results"])

_BINARY: Final = {"type": "string", "format": "binary"}
_ERRORS: Final = {**NOT_MODIFIED, **documented(404, 409)}
_JSON: Final = "application/json"
_OCTETS: Final = "application/octet-stream"
_MODEL_HEADERS: Final = {"Content-Disposition": 'attachment; filename="model.onnx"'}
# The page carries its own styles and charts, and needs nothing else, whatever a model is called.
_REPORT_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; form-action 'none'; sandbox allow-popups",
    "X-Content-Type-Options": "nosniff",
}


@final
@dataclass(frozen=True, kw_only=True)
class _Result:
    """The files of a job that succeeded, which never change."""

    job_id: str
    folder: Path
    known: str | None

    def answer(
        self, name: str, *, media_type: str, headers: Mapping[str, str] | None = None
    ) -> Response:
        path = self.folder / name
        # A runner that was turned against us must not make us hand out what it points to.
        if not path.is_file() or path.is_symlink():
            raise AbsentError(
                f"Job {self.job_id!r} has no {name}. Expected a job of a runtime that builds one; "
                "'simulation' does not. Post the job with runtime 'openvino'."
            )
        etag = etag_of(f"{self.job_id}/{name}")
        told = {"ETag": etag, "Cache-Control": "private, no-cache", **(headers or {})}
        if is_known(etag, self.known):
            return Response(status_code=304, headers=told)
        return FileResponse(path, media_type=media_type, headers=told)


def _result(
    *,
    job_id: JobId,
    service: TheService,
    tenant: TheTenant,
    if_none_match: IfNoneMatch = None,
) -> _Result:
    job = tenant.jobs.get(str(job_id))
    if job.state is not JobState.SUCCEEDED:
        raise ConflictError(
            f"Job {job.id!r} is {job.state} and has no result. Expected one that succeeded. "
            f"{'Its error says why.' if job.is_done else 'Follow it until it is done.'}"
        )
    folder = service.settings.data.result(job.id)
    return _Result(job_id=job.id, folder=folder, known=if_none_match)


@router.get(
    "/v1/jobs/{job_id:uuid}/plan",
    summary="The plan",
    response_model=Plan,
    responses=_ERRORS,
)
def get_plan(result: Annotated[_Result, Depends(_result)]) -> Response:
    """Return the format of each layer, what was forecast, and the proof."""
    return result.answer("plan.json", media_type=_JSON)


@router.get(
    "/v1/jobs/{job_id:uuid}/frontier",
    summary="The front",
    response_model=list[FrontPoint],
    responses=_ERRORS,
)
def get_frontier(result: Annotated[_Result, Depends(_result)]) -> Response:
    """Return the least loss at limits of the first budget's resource."""
    return result.answer("frontier.json", media_type=_JSON)


@router.get(
    "/v1/jobs/{job_id:uuid}/verification",
    summary="What was promised and measured",
    response_model=list[Verification],
    responses=_ERRORS,
)
def get_verification(result: Annotated[_Result, Depends(_result)]) -> Response:
    """Return each quantity of the plan, predicted and measured."""
    return result.answer("verification.json", media_type=_JSON)


@router.get(
    "/v1/jobs/{job_id:uuid}/report",
    summary="The report",
    response_class=FileResponse,
    responses={
        200: {"description": "A page.", "content": {"text/html": {"schema": {"type": "string"}}}},
        **_ERRORS,
    },
)
def get_report(result: Annotated[_Result, Depends(_result)]) -> Response:
    """Return the report, one self-contained page."""
    return result.answer("report.html", media_type="text/html", headers=_REPORT_HEADERS)


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
def get_model(result: Annotated[_Result, Depends(_result)]) -> Response:
    """Return the executable of the plan, which `mpsearch.load` opens. Simulations have none."""
    return result.answer("model.onnx", media_type=_OCTETS, headers=_MODEL_HEADERS)


@router.get(
    "/v1/jobs/{job_id:uuid}/sensitivity",
    summary="The sensitivity table",
    response_model=SensitivityResource,
    responses=_ERRORS,
)
def get_sensitivity(result: Annotated[_Result, Depends(_result)], service: TheService) -> Response:
    """Return the loss of each layer (row) in each format (column), with standard errors."""
    sensitivity, _ = service.tables.of(result.folder)
    return Response(to_json(sensitivity_resource(sensitivity)), media_type=_JSON)


@router.get(
    "/v1/jobs/{job_id:uuid}/costs",
    summary="The cost tables",
    response_model=list[CostResource],
    responses=_ERRORS,
)
def get_costs(result: Annotated[_Result, Depends(_result)], service: TheService) -> Response:
    """Return what each layer (row) spends in each format (column), a table per base."""
    _, costs = service.tables.of(result.folder)
    return Response(to_json([cost_resource(cost) for cost in costs]), media_type=_JSON)
