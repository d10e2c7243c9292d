"""`mpsearch serve`: the HTTP service with its worker, on this machine."""

import re
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Final

import typer

from mpsearch.cli.session import session
from mpsearch.errors import MissingPackageError, UsageError

_ROOT: Final = re.compile(r"(?P<name>[A-Za-z0-9_][A-Za-z0-9_.-]{0,63})=(?P<folder>.+)")
_PACKAGES: Final = frozenset({"fastapi", "uvicorn", "dbos", "sqlalchemy", "uuid_utils"})


def serve(
    *,
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Folder of jobs, uploads, results. [default: the user's]"),
    ] = None,
    roots: Annotated[
        list[str] | None,
        typer.Option(
            "--root",
            metavar="NAME=FOLDER",
            help="A folder whose models and data requests may name. Repeatable.",
        ),
    ] = None,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Port on 127.0.0.1; 0 is any free one.")
    ] = 8765,
) -> None:
    """Serve searches over HTTP on 127.0.0.1, with one worker that does them.

    Ctrl-C ends both; jobs that wait or run go on when it is started again.
    """
    with session(as_json=False, resumes=True) as run:
        folders = read_roots(roots or ())
        try:
            from mpsearch.api.app import build_app
            from mpsearch.api.server import listen, run_server, url_of
            from mpsearch.api.settings import Settings
            from mpsearch.jobs.data_folder import DataFolder, default_data_folder, owned
            from mpsearch.worker.guard import WorkerGuard
        except ModuleNotFoundError as error:
            raise _missing(error) from error
        folder = DataFolder(path=(data or default_data_folder()).resolve())
        with ExitStack() as held:
            listener = held.enter_context(listen(port))
            held.enter_context(owned(folder.path / "server.lock", wait=False))
            application = build_app(Settings(data=folder, roots=folders))
            guard = WorkerGuard(folder, roots=folders)
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


def _missing(error: ModuleNotFoundError) -> MissingPackageError:
    package = (error.name or "").partition(".")[0]
    if package not in _PACKAGES:
        raise error
    return MissingPackageError(
        f"Package {package!r} is not installed. Expected what serving needs. "
        "Run `pip install 'mpsearch[server]'`."
    )
