"""The application: every command under its name."""

from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated

import typer

from mpsearch.cli.cache import cache
from mpsearch.cli.compare_metrics import compare_metrics
from mpsearch.cli.doctor import doctor
from mpsearch.cli.export import export
from mpsearch.cli.frontier import frontier
from mpsearch.cli.jobs import jobs
from mpsearch.cli.keys import keys
from mpsearch.cli.measure import measure
from mpsearch.cli.report import report
from mpsearch.cli.search import search
from mpsearch.cli.serve import serve
from mpsearch.cli.snippets import snippets
from mpsearch.cli.solve import solve
from mpsearch.cli.verify import verify
from mpsearch.cli.worker import worker

# In the order in which a newcomer needs them.
COMMANDS: dict[str, Callable[..., None] | typer.Typer] = {
    "doctor": doctor,
    "search": search,
    "measure": measure,
    "solve": solve,
    "frontier": frontier,
    "export": export,
    "verify": verify,
    "report": report,
    "compare-metrics": compare_metrics,
    "snippets": snippets,
    "serve": serve,
    "worker": worker,
    "keys": keys,
    "jobs": jobs,
    "cache": cache,
}


def _show_version(*, wanted: bool) -> bool:
    if wanted:
        typer.echo(version("mpsearch"))
        raise typer.Exit
    return wanted


def _root(
    *,
    show_version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Show the version.",
            is_eager=True,
            callback=lambda wanted: _show_version(wanted=wanted),
        ),
    ] = False,
) -> None:
    """Find the best number format for each layer of a model under budgets, and prove the plan."""
    del show_version  # its callback has done the work


def build_app() -> typer.Typer:
    """Return the application with every command registered."""
    application = typer.Typer(
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    application.callback()(_root)
    for name, command in COMMANDS.items():
        if isinstance(command, typer.Typer):
            application.add_typer(command, name=name)
        else:
            application.command(name)(command)
    return application


app = build_app()
