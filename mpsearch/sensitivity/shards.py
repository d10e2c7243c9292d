"""Tables of some layers each, measured by several processes, become one."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool
from numpy import ndarray

from mpsearch.core.tables import SensitivityTable
from mpsearch.errors import DataError

_SAME = ("layers", "formats", "metric", "unit", "samples", "quantizers", "provenance")


def merged(tables: Sequence[SensitivityTable]) -> SensitivityTable:
    """Return one table out of shards, each measured for other layers (`offered`).

    Every metric gives a layer the same bits whichever other layers are measured with it, so
    the result equals the table of a single process, bit for bit.

    Raises:
        DataError: There is no shard; two differ in model, data, metric or formats; or two
            hold other losses for one layer and format.
    """
    if not tables:
        raise DataError("There are no tables to merge. Expected at least one. Pass the shards.")
    first = tables[0]
    for table in tables[1:]:
        for name in _SAME:
            if getattr(table, name) != getattr(first, name):
                raise DataError(
                    f"Two tables differ in {name}: {getattr(first, name)!r} and "
                    f"{getattr(table, name)!r}. Expected shards of one measurement. Measure them "
                    "with the same model, data, metric, formats and seed."
                )
        if (table.numbers is None) != (first.numbers is None):
            raise DataError(
                "One table holds signed numbers and another does not. Expected shards of one "
                "measurement. Measure them with the same metric."
            )
    loss, stderr = first.loss.copy(), first.stderr.copy()
    numbers = None if first.numbers is None else first.numbers.copy()
    for table in tables[1:]:
        new = ~np.isnan(table.loss) & np.isnan(loss)
        _check_agreement(first, table, both=~np.isnan(table.loss) & ~np.isnan(loss), loss=loss)
        loss[new], stderr[new] = table.loss[new], table.stderr[new]
        if numbers is not None and table.numbers is not None:
            numbers[:, new] = table.numbers[:, new]
    return replace(first, loss=loss, stderr=stderr, numbers=numbers)


def _check_agreement(
    first: SensitivityTable, table: SensitivityTable, *, both: Bool[ndarray, "L F"], loss: ndarray
) -> None:
    differs = np.argwhere(both & (table.loss != loss))
    if len(differs):
        row, column = differs[0]
        raise DataError(
            f"Two tables give layer {first.layers[row]!r} in {first.formats[column]!r} the losses "
            f"{loss[row, column]} and {table.loss[row, column]}. Expected the same. Measure both "
            "with the same data, seed and number of threads."
        )
