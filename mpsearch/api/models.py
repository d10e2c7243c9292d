"""What the API answers with."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, final

from pydantic import BaseModel, Field

from mpsearch.core.plan import Plan
from mpsearch.core.tables import CostTable, SensitivityTable
from mpsearch.jobs.job import Job, JobState
from mpsearch.jobs.problem import Problem


@final
class JobMetadata(BaseModel):
    """How far a job is. `percent` and `seconds_left` are those of its present phase."""

    state: JobState
    queue: Annotated[str, Field(examples=["dev:cpu"])]
    phase: Annotated[str | None, Field(examples=["measure sensitivity"])] = None
    percent: Annotated[float | None, Field(ge=0, le=100)] = None
    seconds_left: float | None = None
    created: datetime
    started: datetime | None = None
    finished: datetime | None = None


@final
class JobResponse(BaseModel):
    """Where the results of a job that succeeded are; a link is absent where there is none."""

    plan: str
    report: str
    frontier: str
    verification: str
    model: str | None = None


@final
class JobResource(BaseModel):
    """A job. When it is `done` it has either an `error` or a `response`."""

    name: Annotated[str, Field(examples=["jobs/01939f7e-7a5b-7c3d-9e1f-2a3b4c5d6e7f"])]
    done: bool
    metadata: JobMetadata
    error: Problem | None = None
    response: JobResponse | None = None


@final
class JobList(BaseModel):
    """A page of jobs, newest first; without `next_page_token` it is the last one."""

    jobs: list[JobResource]
    next_page_token: str | None = None


@final
class EventResource(BaseModel):
    """Something that happened to a job; ids of one job follow each other without a gap."""

    id: int
    created: datetime
    kind: Annotated[str, Field(examples=["progress"])]
    data: dict[str, Any]


@final
class EventList(BaseModel):
    """What happened, oldest first; empty where nothing did in the time waited."""

    events: list[EventResource]


@final
class BlobResource(BaseModel):
    """An upload."""

    name: Annotated[str, Field(examples=["sha256:" + "0" * 64])]
    size: int


@final
class DeviceResource(BaseModel):
    """What the workers of a queue measure on: a processor with one runtime."""

    name: str
    queue: Annotated[str, Field(examples=["dev:cpu"])]
    runtime: str
    software: dict[str, str]
    bases: list[str]
    formats: list[str]
    seen: datetime


@final
class DeviceList(BaseModel):
    """Every device that a worker has reported."""

    devices: list[DeviceResource]


@final
class SolutionResource(BaseModel):
    """What the solver proved."""

    termination: str
    loss: float
    bound: float
    gap: float
    solver: str
    seconds: float


@final
class SolvedResource(BaseModel):
    """A plan and its proof; it has not been built."""

    plan: Plan
    solution: SolutionResource


@final
class SensitivityResource(BaseModel):
    """Losses and their standard errors: a row per layer, a column per format."""

    layers: list[str]
    formats: list[str]
    loss: list[list[float]]
    stderr: list[list[float]]
    metric: str
    unit: str


@final
class CostResource(BaseModel):
    """What each layer spends in each format, in whole numbers, and what every plan spends."""

    layers: list[str]
    formats: list[str]
    base: str
    placement: str
    amount: dict[str, list[list[int]]]
    constant: dict[str, int]


@final
class Health(BaseModel):
    """The server answers."""

    status: Annotated[str, Field(examples=["ok"])]


@final
class Readiness(BaseModel):
    """The server can take jobs; they run as soon as there is a worker."""

    status: Annotated[str, Field(examples=["ready"])]
    workers: int
    free_bytes: int


def job_resource(job: Job, *, has_model: bool) -> JobResource:
    """Return a job as it is answered."""
    progress = job.progress or {}
    return JobResource(
        name=f"jobs/{job.id}",
        done=job.is_done,
        metadata=JobMetadata(
            state=job.state,
            queue=job.queue,
            phase=progress.get("phase"),
            percent=_percent(progress, is_whole=job.state is JobState.SUCCEEDED),
            seconds_left=None if job.is_done else progress.get("seconds_left"),
            created=moment(job.created),
            started=None if job.started is None else moment(job.started),
            finished=None if job.finished is None else moment(job.finished),
        ),
        error=None if job.error is None else Problem.model_validate(job.error),
        response=_links(job.id, has_model=has_model) if job.state is JobState.SUCCEEDED else None,
    )


def sensitivity_resource(table: SensitivityTable) -> dict[str, Any]:
    """Return a sensitivity table as it is answered."""
    return {
        "layers": table.layers,
        "formats": table.formats,
        "loss": table.loss.tolist(),
        "stderr": table.stderr.tolist(),
        "metric": table.metric,
        "unit": table.unit,
    }


def cost_resource(table: CostTable) -> dict[str, Any]:
    """Return a cost table as it is answered."""
    return {
        "layers": table.layers,
        "formats": table.formats,
        "base": table.base,
        "placement": table.placement,
        "amount": {str(name): rows.tolist() for name, rows in table.amount.items()},
        "constant": {str(name): value for name, value in table.constant.items()},
    }


def moment(seconds: float) -> datetime:
    """Return a time in UTC."""
    return datetime.fromtimestamp(seconds, tz=UTC)


def _percent(progress: Mapping[str, Any], *, is_whole: bool) -> float | None:
    if is_whole:
        return 100.0
    if not progress.get("total"):
        return None
    share = float(progress["done"]) / float(progress["total"])
    return round(100.0 * min(share, 1.0), 1)


def _links(job_id: str, *, has_model: bool) -> JobResponse:
    place = f"/v1/jobs/{job_id}"
    return JobResponse(
        plan=f"{place}/plan",
        report=f"{place}/report",
        frontier=f"{place}/frontier",
        verification=f"{place}/verification",
        model=f"{place}/model" if has_model else None,
    )
