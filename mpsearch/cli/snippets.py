"""`mpsearch snippets`: what layers cost on a device that has only a runtime and NumPy."""

from pathlib import Path
from typing import Annotated

import typer

from mpsearch.cli.options import Formats, Json, Model, ModelFrom, Runtime, read_model
from mpsearch.cli.session import session
from mpsearch.cli.shown import files_lines


def snippets(
    *,
    model: Model = None,
    model_from: ModelFrom = None,
    output: Annotated[
        Path, typer.Option("--output", help="Folder for the files, or for the cost table.")
    ],
    lut: Annotated[
        Path | None,
        typer.Option("--lut", help="Table (.csv or .json) to read back instead of writing files."),
    ] = None,
    device: Annotated[
        str | None, typer.Option("--device-name", help="With --lut: what the table must be of.")
    ] = None,
    formats: Formats = None,
    runtime: Runtime = "openvino",
    base: Annotated[str, typer.Option("--base", help="fp32 or bf16.")] = "fp32",
    example: Annotated[
        Path | None, typer.Option("--example", help="Samples that show the input shapes.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write single-layer files and a script that times them elsewhere, or read its table back.

    Copy the folder to the device and run `python time_snippets.py` there. `--lut table.csv`
    then makes a cost table of it, which `mpsearch solve` reads beside a sensitivity table.
    """
    with session(as_json=as_json) as run:
        source = read_model(model, model_from)
        from mpsearch.workflow.snippets import read_snippets
        from mpsearch.workflow.snippets import snippets as written

        if lut is not None:
            cost = read_snippets(
                source, table=lut, folder=output, device=device, base=base, example=example
            )
            files = {"costs": output / f"costs-{cost.base}-{cost.placement}.npz"}
            facts = {"device": cost.device.name, "kind": cost.device.runtime, "files": files}
            run.answer(facts, shown=files_lines(files))
            return
        count = written(
            source, folder=output, runtime=runtime, formats=formats, base=base, example=example
        )
        files = {"script": output / "time_snippets.py"}
        run.answer({"snippets": count, "files": files}, shown=files_lines(files))
