"""`mpsearch report`: one HTML file that shows a result."""

from pathlib import Path
from typing import Annotated

import typer

from mpsearch.cli.options import Json
from mpsearch.cli.session import session
from mpsearch.cli.shown import files_lines


def report(
    folder: Annotated[Path, typer.Argument(help="Folder that `mpsearch search` wrote.")],
    *,
    output: Annotated[
        Path | None,
        typer.Option("--output", help="HTML file to write. [default: FOLDER/report.html]"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the HTML report of a search again."""
    with session(as_json=as_json) as run:
        from mpsearch.workflow.report import report as reported

        path = output or folder / "report.html"
        reported(folder, path)
        run.answer({"files": {"report": path}}, shown=files_lines({"report": path}))
