"""`mpsearch search`: from a model and budgets to a plan that was measured to keep them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mpsearch.cli.options import (
    CacheFolder,
    DropOf,
    Effort,
    Fixed,
    Formats,
    Groups,
    Json,
    MaxDrop,
    Minimise,
    Model,
    ModelFrom,
    OptionalBudgets,
    OptionalCalibration,
    Pairs,
    Ranges,
    Runtime,
    Seconds,
    Seed,
    Solver,
    Steps,
    Task,
    Test,
    Threads,
    Validation,
    Workloads,
    read_budgets,
    read_fixed,
    read_model,
    read_workloads,
)
from mpsearch.cli.pictures import over_steps
from mpsearch.cli.session import Session, session
from mpsearch.cli.shown import (
    files_lines,
    notes_lines,
    plan_lines,
    stacked,
    verification_table,
    written,
)

if TYPE_CHECKING:
    from mpsearch.workflow.search import SearchResult


def search(
    *,
    model: Model = None,
    model_from: ModelFrom = None,
    calibration: OptionalCalibration = None,
    steps: Steps = None,
    budgets: OptionalBudgets = None,
    max_drop: MaxDrop = None,
    drop_of: DropOf = None,
    minimise: Minimise = "latency",
    output: Annotated[
        Path, typer.Option("--output", help="Folder for plan, model, report and tables.")
    ],
    validation: Validation = None,
    test: Test = None,
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
    cache: CacheFolder = None,
    ranges: Ranges = "mse",
    pairs: Pairs = "jointly",
    as_json: Json = False,
) -> None:
    """Find the best plan under budgets and prove it here.

    Measures, solves, builds the candidates, times them head to head, and returns the best one
    that was measured to keep the budgets, with a report. With --max-drop it is the fastest or
    smallest plan that is certified to lose no more than that.
    """
    with session(as_json=as_json, resumes=True) as run:
        from mpsearch.workflow.search import search as searched

        result = searched(
            read_model(model, model_from),
            over_steps(calibration, steps),
            budgets=read_budgets(budgets or []),
            max_drop=max_drop,
            drop_of=drop_of,
            minimise=minimise,
            task=task,
            validation=None if validation is None else over_steps(validation, steps),
            test=None if test is None else over_steps(test, steps),
            formats=formats,
            fixed=read_fixed(fixed),
            runtime=runtime,
            workloads=read_workloads(workloads),
            threads=threads,
            seed=seed,
            cache=cache,
            ranges=ranges,
            pairs=pairs,
            progress=run.progress,
            solver=solver,
            effort=effort,
            seconds=seconds,
            groups=groups,
        )
        _answer(run, result, output=output)


def _answer(run: Session, result: "SearchResult", *, output: Path) -> None:
    result.save(output)
    run.answer(
        {
            "plan": result.plan,
            "verification": result.verification,
            "phases": result.phases,
            "notes": result.notes,
            "files": written(output),
        },
        shown=stacked(
            plan_lines(result.plan),
            verification_table(result.verification),
            notes_lines(result.notes),
            files_lines(written(output)),
        ),
    )
