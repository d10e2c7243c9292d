"""A job in words: what it searches, how far it is, how it ended."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, final

from mpsearch.api.models import job_resource, moment
from mpsearch.jobs.job import Job, JobState
from mpsearch.report.numbers import seconds

_GOOD: Final = JobState.SUCCEEDED
_BAD: Final = JobState.FAILED


@final
@dataclass(frozen=True, kw_only=True)
class JobView:
    """What is shown of a job; `tone` is how its state is coloured."""

    id: str
    title: str
    budgets: str
    state: str
    tone: str
    phase: str
    percent: float | None
    time: str
    created: datetime
    error: str
    version: int
    may_cancel: bool
    may_delete: bool
    is_done: bool
    has_result: bool


def job_view(job: Job, *, now: float) -> JobView:
    """Return a job as pages show it."""
    told = job_resource(job, has_model=False)
    metadata = told.metadata
    return JobView(
        id=job.id,
        title=_title(job.request.get("model")),
        budgets=_limits(job.request),
        state=job.state,
        tone={_GOOD: "good", _BAD: "bad", JobState.RUNNING: "accent"}.get(job.state, ""),
        phase=(metadata.phase or "").replace("_", " "),
        percent=metadata.percent,
        time=_time(job, left=metadata.seconds_left, now=now),
        created=moment(job.created),
        error="" if told.error is None else f"{told.error.title}. {told.error.detail}",
        version=job.version,
        may_cancel=job.state in (JobState.QUEUED, JobState.RUNNING),
        may_delete=job.is_done,
        is_done=job.is_done,
        has_result=job.state is _GOOD,
    )


def _title(model: object) -> str:
    """Return what a model is called: its place under a root, or the weights that were uploaded."""
    if isinstance(model, Mapping):
        if "path" in model:
            return str(model["path"])
        names = sorted(model.get("files", ()), key=lambda name: not _holds_weights(name))
        if names:
            return f"{names[0]} (uploaded)"
    return "model"


def _holds_weights(name: str) -> bool:
    return name.endswith((".safetensors", ".onnx"))


def _limits(request: Mapping[str, Any]) -> str:
    """Return what a plan has to keep, in the words of the request."""
    budgets = request.get("budgets")
    limits = dict(budgets) if isinstance(budgets, Mapping) else {}
    found = [f"{str(name).replace('_', ' ')} at most {limit}" for name, limit in limits.items()]
    if request.get("max_drop") is not None:
        least = str(request.get("minimise", "latency")).replace("_", " ")
        found.append(f"least {least} within a drop of {request['max_drop']}")
    return ", ".join(found)


def _time(job: Job, *, left: float | None, now: float) -> str:
    """Return how long a job has taken, or has yet to take in its present phase."""
    if job.started is None:
        return ""
    if job.finished is not None:
        return f"took {seconds(job.finished - job.started)}"
    if left is not None:
        return f"{seconds(left)} left in this phase"
    return f"for {seconds(max(now - job.started, 0.0))}"
