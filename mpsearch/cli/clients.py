"""What commands that speak to a service share: its address, a client, following a job."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias

import typer

from mpsearch.cli.serve import needs_server_packages
from mpsearch.cli.session import Session
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
HERE: Final = "http://127.0.0.1:8765"


@contextmanager
def client_of(url: str, *, key: str | None) -> "Iterator[Client]":
    """Speak to a service while the context lasts."""
    with needs_server_packages():
        from mpsearch.client import Client
    with Client(url, key=key) as client:
        yield client


def follow(client: "Client", job: str, *, run: Session) -> dict[str, Any]:
    """Show a job's progress to its end, and return it."""
    known = ProgressEvent.__dataclass_fields__
    for event in client.events(job):
        if event["kind"] == "progress":
            run.progress(ProgressEvent(**{name: event[name] for name in known if name in event}))
    return client.job(job)


def tell(run: Session, job: Mapping[str, Any]) -> None:
    """Answer with a job; one that failed ends the command as the search itself would have.

    Raises:
        ServiceError: The job failed.
    """
    error = job.get("error")
    if error is not None and not run.as_json:
        raise ServiceError(f"Job {job['name']!r} failed. {error['detail']}")
    run.answer(job, shown=f"{job['name']} {job['metadata']['state']}")
