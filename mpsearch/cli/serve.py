"""`mpsearch serve`: the HTTP service with its worker."""

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Final, TypeAlias

import typer

from mpsearch.cli.session import session
from mpsearch.errors import MissingPackageError, UsageError

_ROOT: Final = re.compile(r"(?P<name>[A-Za-z0-9_][A-Za-z0-9_.-]{0,63})=(?P<folder>.+)")
_PACKAGES: Final = frozenset(
    {"fastapi", "uvicorn", "dbos", "sqlalchemy", "alembic", "psycopg", "uuid_utils"}
    | {"structlog", "prometheus_client", "httpx2", "jinja2"}
)

DataOption: TypeAlias = Annotated[
    Path | None,
    typer.Option("--data", help="Folder of jobs, uploads, results. [default: the user's]"),
]
RootOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--root",
        metavar="NAME=FOLDER",
        help="A folder whose models and data requests may name. Repeatable.",
    ),
]
ShardSeconds: TypeAlias = Annotated[
    float | None,
    typer.Option(
        "--shard-seconds",
        min=0.0,
        help="Divide long measuring into parts of so many seconds at least, for several workers "
        "to share. [default: 10 where there are several, else undivided]",
    ),
]
JsonLogs: TypeAlias = Annotated[
    bool, typer.Option("--json-logs", help="Log one JSON object per line.")
]


def serve(
    *,
    data: DataOption = None,
    roots: RootOption = None,
    host: Annotated[
        str,
        typer.Option("--host", help="Address to answer on; beyond this machine, keys are needed."),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Port; 0 is any free one.")
    ] = 8765,
    workers: Annotated[
        int, typer.Option("--workers", min=0, max=1, help="0 where workers run elsewhere.")
    ] = 1,
    shard_seconds: ShardSeconds = None,
    json_logs: JsonLogs = False,
) -> None:
    """Serve searches over HTTP on 127.0.0.1, with one worker that does them.

    Ctrl-C ends both; jobs that wait or run go on when it is started again.
    """
    with session(as_json=False, resumes=True) as run:
        folders = read_roots(roots or ())
        with needs_server_packages():
            from mpsearch.api.app import build_app
            from mpsearch.api.exposure import check_exposure
            from mpsearch.api.server import listen, run_server, url_of
            from mpsearch.api.settings import Settings, data_folder
            from mpsearch.jobs.data_folder import default_data_folder, owned
            from mpsearch.jobs.logs import log_as_json
            from mpsearch.worker.guard import WorkerGuard
            from mpsearch.worker.sandbox.probe import layers_that_hold
        folder = data_folder(data or default_data_folder())
        settings = Settings(data=folder, host=host, roots=folders)
        with ExitStack() as held:
            listener = held.enter_context(listen(port, host=host))
            held.enter_context(owned(folder.path / "server.lock", wait=False))
            if not settings.is_local:
                check_exposure(settings, layers=layers_that_hold())
            application = build_app(settings)
            if json_logs:
                log_as_json(sys.stderr)
            if workers:
                guard = WorkerGuard(
                    folder, roots=folders, shard_seconds=shard_seconds, json_logs=json_logs
                )
                guard.start()
                held.callback(guard.stop)
            run.say(f"Serving on {url_of(listener)}, described at {url_of(listener)}/openapi.json.")
            run.say(f"Data in {folder.path}. Ctrl-C ends it; jobs go on at the next start.")
            for name, place in folders.items():
                run.say(f"Root {name} is {place}.")
            run_server(application, listener=listener)


def read_roots(texts: Sequence[str]) -> dict[str, Path]:
    """Return {name: folder} of texts such as 'models=/srv/models'.

    Raises:
        UsageError: One is malformed, given twice, or no folder.
    """
    found: dict[str, Path] = {}
    for text in texts:
        match = _ROOT.fullmatch(text)
        if match is None or match["name"] in found or not Path(match["folder"]).is_dir():
            raise UsageError(
                f"Root {text!r} cannot be used. Expected NAME=FOLDER with a name that is new and a "
                "folder that exists, such as models=./models. Mend it."
            )
        found[match["name"]] = Path(match["folder"]).resolve()
    return found


@contextmanager
def needs_server_packages() -> Iterator[None]:
    """Say how to install what the imports in this block lack."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _PACKAGES:
            raise
        raise MissingPackageError(
            f"Package {package!r} is not installed. Expected what serving needs. "
            "Run `pip install 'mpsearch[server]'`."
        ) from error
