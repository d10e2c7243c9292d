"""`mpsearch measure`: tables of sensitivity and cost, to be solved for any budget later."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mpsearch.cli.options import (
    CacheFolder,
    Formats,
    Json,
    Model,
    ModelFrom,
    OptionalCalibration,
    Pairs,
    Ranges,
    Runtime,
    Seed,
    Steps,
    Task,
    Threads,
    Workloads,
    read_model,
    read_workloads,
)
from mpsearch.cli.pictures import over_steps
from mpsearch.cli.session import Session, session
from mpsearch.cli.shown import files_lines, stacked, table_of

if TYPE_CHECKING:
    from mpsearch.workflow.measure import Measured


def measure(
    *,
    model: Model = None,
    model_from: ModelFrom = None,
    calibration: OptionalCalibration = None,
    steps: Steps = None,
    output: Annotated[Path, typer.Option("--output", help="Folder for the tables.")],
    task: Task = "auto",
    formats: Formats = None,
    runtime: Runtime = "openvino",
    workloads: Workloads = None,
    threads: Threads = 1,
    seed: Seed = 0,
    cache: CacheFolder = None,
    ranges: Ranges = "mse",
    pairs: Pairs = "jointly",
    as_json: Json = False,
) -> None:
    """Measure what each format costs and hurts, once.

    Writes one sensitivity table and the cost tables, from which `solve` and `frontier` answer
    for any budget without the model.
    """
    with session(as_json=as_json, resumes=True) as run:
        shapes = read_workloads(workloads)
        source = read_model(model, model_from)
        from mpsearch.workflow.measure import measure as measured_on

        measured = measured_on(
            source,
            over_steps(calibration, steps),
            task=task,
            formats=formats,
            runtime=runtime,
            workloads=shapes,
            threads=threads,
            seed=seed,
            cache=cache,
            ranges=ranges,
            pairs=pairs,
            progress=run.progress,
        )
        _answer(run, measured, output=output)


def _answer(run: Session, measured: "Measured", *, output: Path) -> None:
    measured.save(output)
    files = {path.stem: path for path in sorted(output.glob("*.npz"))}
    table = measured.sensitivity
    run.answer(
        {
            "layers": table.layers,
            "formats": table.formats,
            "loss": table.loss,
            "stderr": table.stderr,
            "unit": table.unit,
            "combining": table.combining,
            "files": files,
        },
        shown=stacked(
            table_of(
                f"loss ({table.unit})",
                *table.formats,
                rows=[
                    (layer, *(f"{value:.3g}" for value in row))
                    for layer, row in zip(table.layers, table.loss, strict=True)
                ],
            ),
            *(() if table.combining is None else (table.combining.told,)),
            files_lines(files),
        ),
    )
