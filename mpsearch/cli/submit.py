"""`mpsearch jobs submit`: a search posted to a service, with the options of `mpsearch search`."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from mpsearch.cli.clients import HERE, Key, Url, client_of, follow, tell
from mpsearch.cli.options import (
    Calibration,
    DropOf,
    Effort,
    Fixed,
    Formats,
    Groups,
    Json,
    MaxDrop,
    Minimise,
    OptionalBudgets,
    Pairs,
    Ranges,
    Runtime,
    Seconds,
    Seed,
    Solver,
    Task,
    Test,
    Threads,
    Validation,
    Workloads,
    read_budgets,
    read_fixed,
    read_workloads,
)
from mpsearch.cli.session import session
from mpsearch.errors import UsageError

if TYPE_CHECKING:
    from mpsearch.client import Client

ModelPath: TypeAlias = Annotated[
    Path, typer.Option("--model", help="Folder with safetensors, or ONNX file.")
]
Root: TypeAlias = Annotated[
    str | None, typer.Option("--root", help="Model and data lie under this root of the service.")
]
Once: TypeAlias = Annotated[
    str | None, typer.Option("--once", help="A name for it: repeated, it is posted once.")
]
Queue: TypeAlias = Annotated[
    str | None,
    typer.Option("--queue", help="Workers that do it, such as dev:h200. [default: dev:cpu]"),
]
Watch: TypeAlias = Annotated[bool, typer.Option("--watch", help="Follow it to its end.")]


def submit(
    *,
    model: ModelPath,
    calibration: Calibration,
    validation: Validation = None,
    test: Test = None,
    root: Root = None,
    budgets: OptionalBudgets = None,
    max_drop: MaxDrop = None,
    drop_of: DropOf = None,
    minimise: Minimise = "latency",
    task: Task = "auto",
    formats: Formats = None,
    fixed: Fixed = None,
    runtime: Runtime = "openvino",
    workloads: Workloads = None,
    threads: Threads = 1,
    seed: Seed = 0,
    solver: Solver = "auto",
    effort: Effort = 1.25,
    seconds: Seconds = None,
    groups: Groups = None,
    ranges: Ranges = "mse",
    pairs: Pairs = "jointly",
    queue: Queue = None,
    once: Once = None,
    watch_it: Watch = False,
    url: Url = HERE,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Post a search; model and data are uploaded unless they lie under a root."""
    data = {"calibration": calibration, "validation": validation, "test": test}
    with session(as_json=as_json) as run:
        wanted = {
            "budgets": read_budgets(budgets or []) or None,
            "max_drop": max_drop,
            "drop_of": drop_of,
            "minimise": minimise,
            "task": task,
            "formats": formats,
            "fixed": read_fixed(fixed),
            "runtime": runtime,
            "workloads": read_workloads(workloads),
            "threads": threads,
            "seed": seed,
            "solver": solver,
            "effort": effort,
            "seconds": seconds,
            "groups": _groups(groups),
            "ranges": ranges,
            "pairs": pairs,
            "queue": queue,
        }
        with client_of(url, key=key) as client:
            sources = _sources(client, model=model, data=data, root=root)
            job = client.submit({**sources, **_given(wanted)}, once=once)
            if watch_it:
                run.say(f"Posted {job['name']}.")
                job = follow(client, job["name"], run=run)
            tell(run, job)


def _sources(
    client: "Client", *, model: Path, data: Mapping[str, Path | None], root: str | None
) -> dict[str, Any]:
    """Return where a service finds model and data, uploaded unless they are there."""
    given = {name: path for name, path in data.items() if path is not None}
    if root is None:
        blobs = {name: client.upload_data(path) for name, path in given.items()}
        return {"model": client.upload_model(model), **blobs}
    return {
        name: {"root": root, "path": path.as_posix()}
        for name, path in {"model": model, **given}.items()
    }


def _given(wanted: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in wanted.items() if value is not None}


def _groups(source: str | None) -> object:
    """Return a grouping that ships by its name, the groups of a file as they stand in it."""
    if source is None or not source.endswith(".toml"):
        return source
    try:
        return tomllib.loads(Path(source).read_text("utf-8"))["group"]
    except (OSError, tomllib.TOMLDecodeError, KeyError) as error:
        raise UsageError(
            f"Grouping {source!r} cannot be read: {error}. Expected tables [[group]] with name, "
            "layers and metric. Correct the file."
        ) from error
