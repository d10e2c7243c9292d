"""Costs of a device that has no room for mpsearch: files to time there, and the table read back."""

from collections.abc import Sequence
from pathlib import Path

from mpsearch.core.files import save_table
from mpsearch.core.formats import BASES
from mpsearch.core.tables import CostTable
from mpsearch.cost.lut import read_lut
from mpsearch.cost.lut_table import cost_table_of
from mpsearch.cost.snippets import write_snippets
from mpsearch.errors import FormatError
from mpsearch.workflow.measure import runtime_named
from mpsearch.workflow.prepare import ModelSource, traced_source
from mpsearch.workflow.reading import DataSource


def snippets(
    model: ModelSource,
    *,
    folder: Path,
    runtime: str = "openvino",
    formats: Sequence[str] | None = None,
    base: str = "fp32",
    example: DataSource | None = None,
) -> int:
    """Write one ONNX file per layer signature and format, and a script that times them.

    The shapes are those of the model's example, or of the first batch of `example`. Copy the
    folder to the device and run `python time_snippets.py` there.

    Raises:
        UnsupportedFeatureError: The runtime runs no files.
        FormatError: A format, or the base, is unknown.
    """
    if base not in BASES:
        raise FormatError(
            f"The base {base!r} is unknown. Expected one of {', '.join(BASES)}. Choose one."
        )
    engine = runtime_named(runtime)
    names = tuple(getattr(engine, "formats", ())) if formats is None else tuple(formats)
    graph = traced_source(model, example=example).graph
    return write_snippets(graph, folder, runtime=engine, formats=names, base=base)


def read_snippets(
    model: ModelSource,
    *,
    table: Path,
    folder: Path,
    device: str | None = None,
    base: str = "fp32",
    example: DataSource | None = None,
) -> CostTable:
    """Read a look-up table back, and write it as cost table into a folder of tables.

    Raises:
        DataError: Rows are missing or wrong, or the table is of another device.
    """
    lut = read_lut(table, device=device)
    graph = traced_source(model, example=example).graph
    cost = cost_table_of(lut, graph, base=base)
    save_table(cost, folder / f"costs-{cost.base}-{cost.placement}.npz")
    return cost
