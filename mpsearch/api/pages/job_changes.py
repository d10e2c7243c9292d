"""What a person may do to a job: cancel and delete it, as over the API."""

from typing import Final

from fastapi import APIRouter, Response
from fastapi.responses import RedirectResponse

from mpsearch.api.pages.places import HOME, JOBS
from mpsearch.api.routes import jobs
from mpsearch.api.routes.jobs import JobId
from mpsearch.api.service import TheService
from mpsearch.api.tenant import TheTenant

router = APIRouter(include_in_schema=False)

_SEE_OTHER: Final = 303


@router.post(f"{JOBS}{{job_id:uuid}}/cancel")
def post_cancel(*, job_id: JobId, service: TheService, tenant: TheTenant) -> Response:
    """End a job and show it."""
    jobs.cancel_job(job_id=job_id, service=service, tenant=tenant)
    return RedirectResponse(f"{JOBS}{job_id}", status_code=_SEE_OTHER)


@router.post(f"{JOBS}{{job_id:uuid}}/delete")
def post_delete(*, job_id: JobId, service: TheService, tenant: TheTenant) -> Response:
    """Forget a job and show the others."""
    jobs.delete_job(job_id=job_id, service=service, tenant=tenant)
    return RedirectResponse(HOME, status_code=_SEE_OTHER)
