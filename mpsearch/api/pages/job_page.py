"""A job's page: progress while it runs, then front, plans, proof, differences and downloads."""

import time
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response

from mpsearch.api.pages.agreement_chart import agreements
from mpsearch.api.pages.choices import RETURNED, Choice, choice_named, choices_of, slider_of, varied
from mpsearch.api.pages.difference import difference
from mpsearch.api.pages.downloads import downloads_of
from mpsearch.api.pages.front_chart import front_chart, place_of
from mpsearch.api.pages.job_view import job_view
from mpsearch.api.pages.layers_chart import layers_drawing, layers_of
from mpsearch.api.pages.places import JOBS
from mpsearch.api.pages.rendering import answer_page
from mpsearch.api.pages.result import Result, result_of
from mpsearch.api.routes.jobs import JobId
from mpsearch.api.service import Service, TheService
from mpsearch.api.tenant import Tenant, TheTenant
from mpsearch.core.files import to_json
from mpsearch.jobs.job import JobState
from mpsearch.report.layers import title_of, unit_of
from mpsearch.report.numbers import amount
from mpsearch.report.proof import budget_views, headlines, promise_views, resources_of

router = APIRouter(include_in_schema=False)

_PAGE: Final = f"{JOBS}{{job_id:uuid}}"
Pick = Annotated[str | None, Query(max_length=20)]
Limit = Annotated[int | None, Query(ge=0)]


@router.get(_PAGE)
def get_page(
    *,
    request: Request,
    job_id: JobId,
    service: TheService,
    tenant: TheTenant,
    pick: Pick = None,
    limit: Limit = None,
    one: Pick = None,
    other: Pick = None,
) -> Response:
    """Show a job and what it has found."""
    job = tenant.jobs.get(str(job_id))
    shown: dict[str, Any] = {}
    if job.state is JobState.SUCCEEDED:
        result = result_of(job, service=service)
        chosen = choice_named(result, _wanted(pick, limit=limit))
        shown = {
            **_found(result),
            **_chosen(result, chosen),
            **_compared(result, one=one or RETURNED, other=other or _rival(result, chosen)),
            "downloads": downloads_of(job.id, folder=service.settings.data.result(job.id)),
        }
    return answer_page(
        request,
        "job_page.html",
        job=job_view(job, now=time.time()),
        address=_address(job.id),
        **shown,
    )


@router.get(f"{_PAGE}/progress")
def get_progress(*, request: Request, job_id: JobId, tenant: TheTenant) -> Response:
    """Show how far a job is."""
    job = tenant.jobs.get(str(job_id))
    return answer_page(
        request,
        "job_progress.html",
        job=job_view(job, now=time.time()),
        address=_address(job.id),
    )


@router.get(f"{_PAGE}/chosen")
def get_chosen(
    *,
    request: Request,
    job_id: JobId,
    service: TheService,
    tenant: TheTenant,
    pick: Pick = None,
    limit: Limit = None,
) -> Response:
    """Show a plan: one that a person has picked, or one that is solved now."""
    result = _result(str(job_id), service=service, tenant=tenant)
    choice = choice_named(result, _wanted(pick, limit=limit))
    return answer_page(
        request, "chosen.html", address=_address(str(job_id)), **_chosen(result, choice)
    )


@router.get(f"{_PAGE}/difference")
def get_difference(
    *,
    request: Request,
    job_id: JobId,
    service: TheService,
    tenant: TheTenant,
    one: Pick = None,
    other: Pick = None,
) -> Response:
    """Show how two plans differ."""
    result = _result(str(job_id), service=service, tenant=tenant)
    return answer_page(
        request,
        "difference.html",
        address=_address(str(job_id)),
        **_compared(result, one=one or RETURNED, other=other or RETURNED),
    )


@router.get(f"{_PAGE}/plan.json")
def get_plan(
    *, job_id: JobId, service: TheService, tenant: TheTenant, pick: Pick = None
) -> Response:
    """Return a plan as a file, as `mpsearch export` reads it."""
    result = _result(str(job_id), service=service, tenant=tenant)
    choice = choice_named(result, pick or RETURNED)
    name = f"plan-{choice.pick}.json"
    return Response(
        to_json(choice.plan),
        media_type="application/json",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


@router.get(f"{_PAGE}/formats.css")
def get_colours(
    *, request: Request, job_id: JobId, service: TheService, tenant: TheTenant
) -> Response:
    """Return the colours of a job's formats, which a strict page cannot hold itself."""
    result = _result(str(job_id), service=service, tenant=tenant)
    answer = answer_page(request, "formats.css", swatches=result.swatches.values())
    answer.headers["content-type"] = "text/css"
    return answer


def _result(job_id: str, *, service: Service, tenant: Tenant) -> Result:
    return result_of(tenant.jobs.get(job_id), service=service)


def _wanted(pick: str | None, *, limit: int | None) -> str:
    return f"limit-{limit}" if limit is not None else pick or RETURNED


def _address(job_id: str) -> str:
    return f"{JOBS}{job_id}"


def _rival(result: Result, chosen: Choice) -> str:
    """Return what the returned plan is compared with: what is chosen, or else the next one."""
    others = [pick for pick in choices_of(result) if pick != RETURNED]
    return chosen.pick if chosen.pick != RETURNED or not others else others[0]


def _found(result: Result) -> dict[str, Any]:
    """Return what the page shows of a result, whatever plan is chosen."""
    summary, plan = result.summary, result.plan
    choices = choices_of(result)
    budgets = budget_views(plan, verification=summary.verification, tried=summary.tried)
    return {
        "plan": plan,
        "headlines": headlines(plan, budgets=budgets, verification=summary.verification),
        "front": front_chart(result, choices=choices),
        "slider": slider_of(result),
        "promises": promise_views(summary.verification),
        "agreements": agreements(tuple(choices.values())),
    }


def _chosen(result: Result, choice: Choice) -> dict[str, Any]:
    """Return what is shown of a chosen plan."""
    layers = layers_of(result, choice.plan)
    swatches = result.swatches
    chart = front_chart(result, choices=choices_of(result))
    return {
        "choice": choice,
        "figures": _figures(result, choice),
        "layers": layers,
        "drawing": layers_drawing(layers, swatches=swatches),
        "swatches": swatches,
        "place": place_of(chart, choice, resource=varied(result)),
    }


def _figures(result: Result, choice: Choice) -> list[tuple[str, str, str]]:
    """Return (title, predicted, measured) of the loss and each resource that counts."""
    measured = choice.measured
    found = measured.amount if measured is not None else {}
    # What was promised of the returned plan took into account how fast the device was that day.
    forecast = choice.plan.forecast if choice.pick == RETURNED else choice.forecast
    loss = measured.loss if measured is not None else None
    rows = [("Loss", "loss", loss, "")]
    rows += [
        (title_of(name), name, found.get(name), unit_of(name)) for name in resources_of(result.plan)
    ]
    return [
        (
            title,
            amount(forecast.get(name, float("nan")), unit=unit),
            "" if value is None else amount(value, unit=unit),
        )
        for title, name, value, unit in rows
    ]


def _compared(result: Result, *, one: str, other: str) -> dict[str, Any]:
    """Return two plans and all that could be compared."""
    picked = {pick: choice_named(result, pick) for pick in (one, other)}
    return {
        "difference": difference(picked[one], picked[other], result=result),
        "comparable": {**choices_of(result), **picked},
        "colours": result.swatches,
    }
