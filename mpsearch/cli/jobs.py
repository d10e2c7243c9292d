"""`mpsearch jobs`: the service from the command line."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias

import typer

from mpsearch.cli.clients import HERE, Key, Url, client_of, follow, tell
from mpsearch.cli.options import Json
from mpsearch.cli.session import session
from mpsearch.cli.shown import files_lines, table_of
from mpsearch.cli.submit import submit
from mpsearch.errors import ServiceError

JobId: TypeAlias = Annotated[str, typer.Argument(metavar="JOB", help="Id or name of a job.")]
_FILES: Final = {
    "plan": "plan.json",
    "report": "report.html",
    "frontier": "frontier.json",
    "verification": "verification.json",
    "model": "model.onnx",
}

jobs = typer.Typer(no_args_is_help=True, help="Post searches to a service and follow them.")


jobs.command()(submit)


@jobs.command()
def watch(*, job: JobId, url: Url = HERE, key: Key = None, as_json: Json = False) -> None:
    """Follow a job to its end."""
    with session(as_json=as_json) as run, client_of(url, key=key) as client:
        tell(run, follow(client, job, run=run))


@jobs.command("list")
def list_jobs(
    *,
    state: Annotated[str | None, typer.Option("--state", help="Only those.")] = None,
    url: Url = HERE,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Show jobs, newest first."""
    with session(as_json=as_json) as run, client_of(url, key=key) as client:
        found = list(client.jobs(state=state))
        run.answer(
            {"jobs": found},
            shown=table_of("job", "state", "phase", "created", rows=[_row(job) for job in found]),
        )


@jobs.command()
def cancel(*, job: JobId, url: Url = HERE, key: Key = None, as_json: Json = False) -> None:
    """End a job."""
    with session(as_json=as_json) as run, client_of(url, key=key) as client:
        tell(run, client.cancel(job))


@jobs.command()
def fetch(
    *,
    job: JobId,
    output: Annotated[Path, typer.Option("--output", help="Folder for its files.")] = Path("plan"),
    url: Url = HERE,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Download plan, model, report and figures of a job that succeeded."""
    with session(as_json=as_json) as run, client_of(url, key=key) as client:
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


def _row(job: Mapping[str, Any]) -> tuple[object, ...]:
    told = job["metadata"]
    share = "" if told.get("percent") is None else f" {told['percent']} %"
    return job["name"], told["state"], f"{told.get('phase', '')}{share}", told["created"]
