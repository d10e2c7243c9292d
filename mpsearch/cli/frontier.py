"""`mpsearch frontier`: what one more byte or microsecond buys."""

from pathlib import Path
from typing import Annotated

import typer

from mpsearch.cli.options import Fixed, Json, Solver, read_budgets, read_fixed
from mpsearch.cli.session import session
from mpsearch.cli.shown import table_of
from mpsearch.cli.tables import read_tables
from mpsearch.cli.words import quantity

_UNITS = {"weight_bytes": "B", "latency_ns": "ns", "bops": "BOPs", "weight_bits": "bits"}


def frontier(
    tables: Annotated[Path, typer.Argument(help="Folder that `measure` or `search` wrote.")],
    *,
    resource: Annotated[
        str, typer.Option("--resource", help="Budget to vary: weight_bytes, latency, bops.")
    ] = "weight_bytes",
    points: Annotated[int, typer.Option("--points", min=2, help="Limits to try.")] = 20,
    budgets: Annotated[
        list[str] | None,
        typer.Option("--budget", metavar="NAME=LIMIT", help="Limit that holds at every point."),
    ] = None,
    fixed: Fixed = None,
    solver: Solver = "auto",
    as_json: Json = False,
) -> None:
    """Show the least loss at each limit of one resource."""
    with session(as_json=as_json) as run:
        from mpsearch.workflow.solve import frontier as front_of

        limits, pins = read_budgets(budgets or ()), read_fixed(fixed)
        sensitivity, costs = read_tables(tables)
        front = front_of(
            sensitivity,
            costs,
            resource=resource,
            points=points,
            budgets=limits or None,
            fixed=pins,
            solver=solver,
        )
        spends = list(front[0].spend) if front else []
        run.answer(
            {"resource": resource, "points": front},
            shown=table_of(
                "loss",
                *spends,
                "base",
                rows=[
                    (
                        f"{point.loss:.4g}",
                        *(quantity(point.spend[name], _UNITS.get(name, "")) for name in spends),
                        point.base,
                    )
                    for point in front
                ],
            ),
        )
