"""`mpsearch solve`: another budget, another plan, from tables measured before."""

from pathlib import Path
from typing import Annotated

import typer

from mpsearch.cli.options import Budgets, Fixed, Json, Solver, read_budgets, read_fixed
from mpsearch.cli.session import session
from mpsearch.cli.shown import files_lines, plan_lines, stacked
from mpsearch.cli.tables import read_tables
from mpsearch.core.files import save_plan


def solve(
    tables: Annotated[Path, typer.Argument(help="Folder that `measure` or `search` wrote.")],
    *,
    budgets: Budgets,
    fixed: Fixed = None,
    solver: Solver = "auto",
    output: Annotated[
        Path | None, typer.Option("--output", help="Plan file to write, such as plan.json.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Find the optimal plan of stored tables.

    Takes milliseconds and needs neither the model nor torch.
    """
    with session(as_json=as_json) as run:
        from mpsearch.workflow.solve import solve_tables

        limits, pins = read_budgets(budgets), read_fixed(fixed)
        sensitivity, costs = read_tables(tables)
        solved = solve_tables(sensitivity, costs, budgets=limits, fixed=pins, solver=solver)
        files = {"plan": output} if output else {}
        if output:
            save_plan(solved.plan, output)
        solution = solved.solution
        run.answer(
            {
                "plan": solved.plan,
                "solution": {
                    "termination": solution.termination,
                    "loss": solution.loss,
                    "bound": solution.bound,
                    "gap": solution.gap,
                    "solver": solution.solver,
                    "seconds": solution.seconds,
                },
                "files": files,
            },
            shown=stacked(plan_lines(solved.plan), files_lines(files)),
        )
