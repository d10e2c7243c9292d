"""`mpsearch compare-metrics`: which sensitivity metric suits a model, and what each costs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mpsearch.cli.options import (
    Budgets,
    CacheFolder,
    Calibration,
    Fixed,
    Formats,
    Json,
    Model,
    ModelFrom,
    Ranges,
    Seed,
    Task,
    Validation,
    read_budgets,
    read_fixed,
    read_model,
)
from mpsearch.cli.session import Session, session
from mpsearch.cli.shown import files_lines, stacked, table_of

if TYPE_CHECKING:
    from mpsearch.workflow.compare import Comparison


def compare_metrics(
    *,
    model: Model = None,
    model_from: ModelFrom = None,
    calibration: Calibration,
    budgets: Budgets,
    output: Annotated[Path, typer.Option("--output", help="Folder for the page and the numbers.")],
    metrics: Annotated[
        list[str] | None,
        typer.Option("--metric", help="A metric to compare. Repeatable. [default: one per kind]"),
    ] = None,
    validation: Validation = None,
    task: Task = "auto",
    formats: Formats = None,
    fixed: Fixed = None,
    runtime: Annotated[str, typer.Option("--runtime", help="Whose formats.")] = "simulation",
    seed: Seed = 0,
    cache: CacheFolder = None,
    ranges: Ranges = "mse",
    as_json: Json = False,
) -> None:
    """Compare sensitivity metrics on your model.

    Measures each, lets each choose a plan under the budgets, verifies all plans by forward
    passes, and writes the comparison as a page with a picture.
    """
    with session(as_json=as_json, resumes=True) as run:
        limits, pins = read_budgets(budgets), read_fixed(fixed)
        source = read_model(model, model_from)
        from mpsearch.workflow.compare import DEFAULT_METRICS
        from mpsearch.workflow.compare import compare_metrics as compared

        found = compared(
            source,
            calibration,
            budgets=limits,
            metrics=metrics or DEFAULT_METRICS,
            validation=validation,
            task=task,
            formats=formats,
            fixed=pins,
            runtime=runtime,
            seed=seed,
            cache=cache,
            ranges=ranges,
            progress=run.progress,
        )
        found.save(output)
        _answer(run, found, output=output)


def _answer(run: Session, found: "Comparison", *, output: Path) -> None:
    files = {name: output / name for name in ("metrics.html", "metrics.json")}
    names = [each.metric for each in found.results]
    costs = table_of(
        "metric",
        "seconds",
        f"verified ({found.unit})",
        "standard error",
        rows=[
            (each.metric, f"{each.seconds:.1f}", f"{each.measured:.4g}", f"{each.stderr:.2g}")
            for each in found.results
        ],
    )
    ranks = table_of(
        "rank agreement",
        *names,
        rows=[
            (name, *(f"{value:.2f}" for value in row))
            for name, row in zip(names, found.agreement.tolist(), strict=True)
        ],
    )
    run.answer(
        {"comparison": found, "files": files},
        shown=stacked(costs, ranks, found.advice, files_lines(files)),
    )
