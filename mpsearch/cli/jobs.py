"""`mpsearch jobs`: the service from the command line."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias

import typer

from mpsearch.cli.options import Budgets, Formats, Json, Task, read_budgets
from mpsearch.cli.serve import needs_server_packages
from mpsearch.cli.session import Session, session
from mpsearch.cli.shown import files_lines, table_of
from mpsearch.core.progress import ProgressEvent
from mpsearch.errors import ServiceError

if TYPE_CHECKING:
    from mpsearch.client import Client

Url: TypeAlias = Annotated[
    str, typer.Option("--url", envvar="MPS_URL", help="Address of the service.")
]
Key: TypeAlias = Annotated[
    str | None,
    typer.Option("--key", envvar="MPS_KEY", help="Your key, if it has keys. Better in MPS_KEY."),
]
JobId: TypeAlias = Annotated[str, typer.Argument(metavar="JOB", help="Id or name of a job.")]
_HERE: Final = "http://127.0.0.1:8765"
_FILES: Final = {
    "plan": "plan.json",
    "report": "report.html",
    "frontier": "frontier.json",
    "verification": "verification.json",
    "model": "model.onnx",
}

jobs = typer.Typer(no_args_is_help=True, help="Post searches to a service and follow them.")


@jobs.command()
def submit(
    *,
    model: Annotated[Path, typer.Option("--model", help="Folder with safetensors, or ONNX file.")],
    calibration: Annotated[Path, typer.Option("--calibration", help=".npz or .jsonl.")],
    budgets: Budgets,
    root: Annotated[
        str | None,
        typer.Option("--root", help="Model and data lie under this root of the service."),
    ] = None,
    task: Task = "auto",
    formats: Formats = None,
    runtime: Annotated[str, typer.Option("--runtime", help="What the plan runs on.")] = "openvino",
    once: Annotated[
        str | None, typer.Option("--once", help="A name for it: repeated, it is posted once.")
    ] = None,
    watch_it: Annotated[bool, typer.Option("--watch", help="Follow it to its end.")] = False,
    url: Url = _HERE,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Post a search; model and data are uploaded unless they lie under a root."""
    with session(as_json=as_json) as run, _client(url, key=key) as client:
        limits = read_budgets(budgets)
        request: dict[str, Any] = {"budgets": limits, "task": task, "runtime": runtime}
        if root is None:
            request["model"] = client.upload_model(model)
            request["calibration"] = client.upload_data(calibration)
        else:
            request["model"] = {"root": root, "path": model.as_posix()}
            request["calibration"] = {"root": root, "path": calibration.as_posix()}
        if formats:
            request["formats"] = formats
        job = client.submit(request, once=once)
        if watch_it:
            run.say(f"Posted {job['name']}.")
            job = _followed(client, job["name"], run=run)
        _tell(run, job)


@jobs.command()
def watch(*, job: JobId, url: Url = _HERE, key: Key = None, as_json: Json = False) -> None:
    """Follow a job to its end."""
    with session(as_json=as_json) as run, _client(url, key=key) as client:
        _tell(run, _followed(client, job, run=run))


@jobs.command("list")
def list_jobs(
    *,
    state: Annotated[str | None, typer.Option("--state", help="Only those.")] = None,
    url: Url = _HERE,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Show jobs, newest first."""
    with session(as_json=as_json) as run, _client(url, key=key) as client:
        found = list(client.jobs(state=state))
        run.answer(
            {"jobs": found},
            shown=table_of("job", "state", "phase", "created", rows=[_row(job) for job in found]),
        )


@jobs.command()
def cancel(*, job: JobId, url: Url = _HERE, key: Key = None, as_json: Json = False) -> None:
    """End a job."""
    with session(as_json=as_json) as run, _client(url, key=key) as client:
        _tell(run, client.cancel(job))


@jobs.command()
def fetch(
    *,
    job: JobId,
    output: Annotated[Path, typer.Option("--output", help="Folder for its files.")] = Path("plan"),
    url: Url = _HERE,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Download plan, model, report and figures of a job that succeeded."""
    with session(as_json=as_json) as run, _client(url, key=key) as client:
        found = client.job(job)
        if "response" not in found:
            raise ServiceError(
                f"Job {found['name']!r} is {found['metadata']['state']} and has no result. "
                "Expected one that succeeded. `mpsearch jobs watch` follows it."
            )
        files = {
            file: client.fetch(job, name, to=output / file)
            for name, file in _FILES.items()
            if name in found["response"]
        }
        run.answer({"files": files}, shown=files_lines(files))


@contextmanager
def _client(url: str, *, key: str | None) -> "Iterator[Client]":
    with needs_server_packages():
        from mpsearch.client import Client
    with Client(url, key=key) as client:
        yield client


def _followed(client: "Client", job: str, *, run: Session) -> dict[str, Any]:
    known = ProgressEvent.__dataclass_fields__
    for event in client.events(job):
        if event["kind"] == "progress":
            run.progress(ProgressEvent(**{name: event[name] for name in known if name in event}))
    return client.job(job)


def _tell(run: Session, job: Mapping[str, Any]) -> None:
    """Answer with a job; one that failed ends the command as the search itself would have."""
    error = job.get("error")
    if error is not None and not run.as_json:
        raise ServiceError(f"Job {job['name']!r} failed. {error['detail']}")
    run.answer(job, shown=f"{job['name']} {job['metadata']['state']}")


def _row(job: Mapping[str, Any]) -> tuple[object, ...]:
    told = job["metadata"]
    share = "" if told.get("percent") is None else f" {told['percent']} %"
    return job["name"], told["state"], f"{told.get('phase', '')}{share}", told["created"]
