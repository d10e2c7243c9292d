"""A look-up table becomes a cost table: what solvers read, for a device that is not here."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from mpsearch.core.formats import format_named
from mpsearch.core.graph import LayerGraph
from mpsearch.core.hardware import Device, Resource, Support
from mpsearch.core.provenance import Provenance
from mpsearch.core.tables import CostTable
from mpsearch.cost.bops import bops_table, weight_bits_table
from mpsearch.cost.lut import Lut, missing_rows, shown
from mpsearch.cost.weight_bytes import weight_bytes_table
from mpsearch.errors import DataError

ESTIMATE: Final = "estimate"
MEASURED_ELSEWHERE: Final = "look-up table"


def cost_table_of(
    lut: Lut,
    graph: LayerGraph,
    *,
    base: str = "fp32",
    formats: Sequence[str] | None = None,
    threads: int = 1,
) -> CostTable:
    """Return the cost table of a model from rows that were measured or estimated elsewhere.

    A plan spends the sum of its rows: nothing is known of boundaries between formats, of what
    lies between layers, or of how far the sum is off, so `calibration` is empty. Amounts that the
    table lacks and shapes give (bytes, BOPs, weight bits) are counted. The runtime's name
    is "estimate" or "look-up table", and no plan of it can be built.

    Args:
        lut: The rows.
        graph: The layers; those of equal signature share a row of a table by signature.
        base: The format in which layers stay as they are.
        formats: The columns; None takes all formats of the table.
        threads: Threads that the rows were timed with.

    Raises:
        DataError: A row is missing, or a row's layer is not in the model.
        FormatError: A format is unknown.
    """
    columns = lut.formats if formats is None else tuple(formats)
    columns = (base, *(name for name in columns if name != base))
    for name in columns:
        format_named(name)
    names = _names(lut, graph)
    _check_rows(lut, names=names, formats=columns)
    support = tuple(
        tuple(Support.NATIVE if lut.amounts(name, each) else Support.NONE for each in columns)
        for name in names
    )
    stored, rest = weight_bytes_table(
        graph,
        formats=columns,
        allowed=np.array([[kind is not Support.NONE for kind in row] for row in support]),
        base=None,
        base_precision=base,
    )
    counted = {
        str(Resource.WEIGHT_BYTES): stored,
        str(Resource.BOPS): bops_table(graph, formats=columns, base=base),
        str(Resource.WEIGHT_BITS): weight_bits_table(graph, formats=columns),
    }
    given = {
        name: _amounts(lut, names=names, formats=columns, resource=name) for name in lut.resources
    }
    constant = {} if Resource.WEIGHT_BYTES in given else {str(Resource.WEIGHT_BYTES): rest}
    device = f"{lut.device} ({ESTIMATE})" if lut.estimate else lut.device
    return CostTable(
        layers=graph.names,
        formats=columns,
        base=base,
        placement="layer_inputs",
        amount=counted | given,
        constant=constant,
        support=support,
        shared_weights=graph.shared_weights,
        device=Device(
            name=device,
            runtime=ESTIMATE if lut.estimate else MEASURED_ELSEWHERE,
            threads=threads,
        ),
        provenance=Provenance(
            model=graph.fingerprint,
            device=device,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        ),
    )


def _names(lut: Lut, graph: LayerGraph) -> tuple[str, ...]:
    if lut.key == "layer":
        return graph.names
    return tuple(layer.signature for layer in graph.layers)


def _check_rows(lut: Lut, *, names: Sequence[str], formats: Sequence[str]) -> None:
    missing = missing_rows(lut, names=names, formats=formats)
    if missing:
        raise DataError(
            f"The look-up table of {lut.device!r} has no row of {shown(missing)}. Expected one for "
            f"each {lut.key} of the model in each of {', '.join(formats)}, empty where there is "
            "no kernel. Add the rows, or leave out a format."
        )
    strangers = [f"{row.name!r}" for row in lut.rows if row.name not in names]
    if strangers and lut.key == "layer":
        raise DataError(
            f"The look-up table of {lut.device!r} has rows of {shown(strangers)}, which the model "
            f"does not have. Expected its {len(names)} layers. Use the table of this model."
        )


def _amounts(
    lut: Lut, *, names: Sequence[str], formats: Sequence[str], resource: str
) -> Int[ndarray, "L F"]:
    rows = [
        [(lut.amounts(name, each) or {}).get(resource, 0.0) for each in formats] for name in names
    ]
    whole: Int[ndarray, "L F"] = np.rint(np.array(rows)).astype(np.int64)
    return whole
