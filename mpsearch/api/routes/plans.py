"""Plans from tables that exist: another budget, another plan, while the caller waits."""

from typing import Annotated, Final

from fastapi import APIRouter, Body, Response

from mpsearch.api.models import SolvedResource
from mpsearch.api.posted_tables import SolveRequest
from mpsearch.api.problems import documented
from mpsearch.api.routes.jobs import check_solver
from mpsearch.api.service import Service, TheService
from mpsearch.api.stored_tables import Tables
from mpsearch.api.tenant import Tenant, TheTenant
from mpsearch.core.files import to_json
from mpsearch.errors import ConflictError
from mpsearch.jobs.job import JobState
from mpsearch.workflow.solve import solve_tables

router = APIRouter(tags=["plans"])

_EXAMPLES: Final = {
    "a job's tables": {
        "value": {
            "job": "01939f7e-7a5b-7c3d-9e1f-2a3b4c5d6e7f",
            "budgets": {"weight_bytes": "20%"},
        }
    },
    "posted tables": {
        "value": {
            "tables": {
                "layers": ["encoder.0", "encoder.1"],
                "formats": ["fp32", "w8", "w4"],
                "sensitivity": {"loss": [[0.0, 0.1, 1.0], [0.0, 0.2, 5.0]]},
                "cost": {"amount": {"weight_bytes": [[4000, 1000, 500], [4000, 1000, 500]]}},
            },
            "budgets": {"weight_bytes": "20%"},
        }
    },
}


@router.post(
    "/v1/plans:solve",
    summary="Solve tables under other budgets",
    response_model=SolvedResource,
    responses=documented(400, 404, 409, 413, 422),
)
def solve_plan(
    *,
    request: Annotated[SolveRequest, Body(openapi_examples=_EXAMPLES)],
    service: TheService,
    tenant: TheTenant,
) -> Response:
    """Return the plan of least predicted loss; nothing is built or measured.

    Where no plan keeps the budgets, the problem names the smallest reachable value of each.
    """
    check_solver(request.solver)
    sensitivity, costs = _tables(request, service=service, tenant=tenant)
    solved = solve_tables(
        sensitivity, costs, budgets=request.budgets, fixed=request.fixed, solver=request.solver
    )
    solution = solved.solution
    answer = {
        "plan": solved.plan,
        "solution": {
            "termination": solution.termination,
            "loss": solution.loss,
            "bound": solution.bound,
            "gap": solution.gap,
            "solver": solution.solver,
            "seconds": solution.seconds,
        },
    }
    # Written by hand: FastAPI would check each of a thousand numbers again.
    return Response(to_json(answer), media_type="application/json")


def _tables(request: SolveRequest, *, service: Service, tenant: Tenant) -> Tables:
    if request.tables is not None:
        return request.tables.tables()
    assert request.job is not None
    job = tenant.jobs.get(request.job.removeprefix("jobs/"))
    if job.state is not JobState.SUCCEEDED:
        raise ConflictError(
            f"Job {job.id!r} is {job.state} and has no tables. Expected one that succeeded. "
            "Name another, or post tables."
        )
    return service.tables.of(service.settings.data.result(job.id))
