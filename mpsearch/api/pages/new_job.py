"""A form that posts a job: a model under a root or uploaded, data, budgets, formats, a task."""

import json
from typing import Any, Final, get_args

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse
from pydantic import ValidationError

from mpsearch.api.pages.forms import fields_of
from mpsearch.api.pages.places import JOBS, NEW
from mpsearch.api.pages.rendering import answer_page
from mpsearch.api.routes import jobs
from mpsearch.api.service import Service, TheService
from mpsearch.api.tenant import Tenant, TheTenant
from mpsearch.errors import MpsearchError
from mpsearch.jobs.queue import QUEUE
from mpsearch.jobs.request import JobRequest, RuntimeName, TaskName

router = APIRouter(include_in_schema=False)

_SEE_OTHER: Final = 303
_UNPROCESSABLE: Final = 422
# 200 files of a model, each by a name and a digest.
_LARGEST_FORM: Final = 65_536
# What the form holds before anybody has filled it in.
_BLANK: Final = {
    "root": "",
    "model": "",
    "calibration": "",
    "model_files": "",
    "calibration_blob": "",
    "calibration_format": "",
    "weight_bytes": "25%",
    "latency": "",
    "formats": "",
    "task": "auto",
    "runtime": "openvino",
    "queue": QUEUE,
}


@router.get(NEW)
def get_form(request: Request, service: TheService) -> Response:
    """Show the form."""
    return _form(request, service, given={}, error="")


@router.post(NEW)
async def post_form(*, request: Request, service: TheService, tenant: TheTenant) -> Response:
    """Post the job and show it, or the form again with what is wrong."""
    given = await fields_of(request, largest=_LARGEST_FORM)
    return await run_in_threadpool(_posted, request, given=given, service=service, tenant=tenant)


def _posted(
    request: Request, *, given: dict[str, str], service: Service, tenant: Tenant
) -> Response:
    answer = Response()
    try:
        wanted = JobRequest.model_validate(_body(given))
        jobs.post_job(request=wanted, response=answer, service=service, tenant=tenant)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"] if part not in {"root", "uploaded"})
        what = first["msg"].removeprefix("Value error, ")
        return _form(request, service, given=given, error=": ".join(filter(None, (place, what))))
    except (MpsearchError, ValueError) as error:
        return _form(request, service, given=given, error=str(error))
    place = answer.headers["location"].rpartition("/")[2]
    return RedirectResponse(f"{JOBS}{place}", status_code=_SEE_OTHER)


def _form(request: Request, service: Service, *, given: dict[str, str], error: str) -> Response:
    return answer_page(
        request,
        "new_job.html",
        status=_UNPROCESSABLE if error else 200,
        given={**_BLANK, **{name: given[name] for name in _BLANK if name in given}},
        error=error,
        roots=list(service.settings.roots),
        tasks=get_args(TaskName),
        runtimes=get_args(RuntimeName),
        queues=sorted({QUEUE, *(worker.queue for worker in service.fleet.workers())}),
    )


def _body(given: dict[str, str]) -> dict[str, Any]:
    """Return the request that a filled-in form stands for; what it leaves out has its default."""
    root = given.get("root", "")
    model: Any = {"root": root, "path": given.get("model", "").strip()}
    if "model_files" in given:
        model = {"files": json.loads(given["model_files"])}
    calibration: Any = {"root": root, "path": given.get("calibration", "").strip()}
    if "calibration_blob" in given:
        kind = given.get("calibration_format", "")
        calibration = {"blob": given["calibration_blob"], "format": kind}
    named = ("weight_bytes", "latency")
    budgets = {name: given[name].strip() for name in named if given.get(name, "").strip()}
    formats = tuple(given.get("formats", "").replace(",", " ").split())
    return {
        "model": model,
        "calibration": calibration,
        **({"budgets": budgets} if budgets else {}),
        **{name: given[name] for name in ("task", "runtime", "queue") if name in given},
        **({"formats": formats} if formats else {}),
    }
