"""The list of jobs, newest first, which keeps itself up to date."""

import time
from typing import Annotated, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response

from mpsearch.api.page_tokens import Place, place_of, token_of
from mpsearch.api.pages.job_view import job_view
from mpsearch.api.pages.places import HOME
from mpsearch.api.pages.rendering import answer_page, is_part
from mpsearch.api.service import TheService
from mpsearch.api.tenant import TheTenant
from mpsearch.jobs.job import JobState

router = APIRouter(include_in_schema=False)

_ON_A_PAGE: Final = 25


@router.get(HOME)
def get_list(
    *,
    request: Request,
    service: TheService,
    tenant: TheTenant,
    state: Annotated[JobState | None, Query()] = None,
    page_token: Annotated[str | None, Query(max_length=500)] = None,
) -> Response:
    """Show jobs, or for a script the table alone."""
    secret = service.keys.pepper
    before = None
    if page_token is not None:
        place = place_of(page_token, secret=secret, actor=tenant.actor)
        before, state = place.before, None if place.state is None else JobState(place.state)
    found = tenant.jobs.page(limit=_ON_A_PAGE + 1, before=before, state=state)
    shown = found[:_ON_A_PAGE]
    older = None
    if len(found) > _ON_A_PAGE:
        last = Place(before=shown[-1].id, state=state)
        older = _address(page_token=token_of(last, secret=secret, actor=tenant.actor))
    return answer_page(
        request,
        "job_rows.html" if is_part(request) else "job_list.html",
        jobs=[job_view(job, now=time.time()) for job in shown],
        here=_address(page_token=page_token) if page_token else _address(state=state),
        older=older,
        is_first=page_token is None,
        state=state,
        states=list(JobState),
    )


def _address(**query: str | None) -> str:
    given = {name: value for name, value in query.items() if value}
    return f"{HOME}?{urlencode(given)}" if given else HOME
