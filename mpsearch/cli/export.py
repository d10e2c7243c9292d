"""`mpsearch export`: a plan as one ONNX file that a runtime executes."""

from pathlib import Path
from typing import Annotated

import typer

from mpsearch.cli.options import Json, Model, ModelFrom, PlanFile, read_model
from mpsearch.cli.session import session
from mpsearch.cli.shown import files_lines
from mpsearch.core.files import load_plan


def export(
    plan: PlanFile,
    *,
    model: Model = None,
    model_from: ModelFrom = None,
    output: Annotated[Path, typer.Option("--output", help="ONNX file to write.")],
    example: Annotated[
        Path | None,
        typer.Option("--example", help="With --model-from: samples that show the input shapes."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a plan's model as one explicit QDQ ONNX file."""
    with session(as_json=as_json) as run:
        loaded = load_plan(plan)
        source = read_model(model, model_from)
        from mpsearch.workflow.export import export as exported

        exported(source, loaded, path=output, example=example)
        files = {"model": output}
        run.answer({"files": files, "bytes": output.stat().st_size}, shown=files_lines(files))
