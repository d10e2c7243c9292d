"""Tables that a request brings along, as JSON arrays."""

import math
from collections.abc import Mapping
from typing import Annotated, TypeAlias, final

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from mpsearch.api.stored_tables import Tables
from mpsearch.core.formats import format_named
from mpsearch.core.hardware import Device, Resource, Support
from mpsearch.core.plan import ActivationQuantizer
from mpsearch.core.tables import CostTable, SensitivityTable
from mpsearch.errors import DataError
from mpsearch.jobs.request import Budgets, Fixed, Name, Solver

# So many numbers keep a solve within seconds; larger tables are a job's.
_MOST_LAYERS = 10_000
_MOST_FORMATS = 40

# As many of these as allowed still sum to less than 2**53, so exactly.
Amount: TypeAlias = Annotated[int, Field(ge=-(2**38), le=2**38)]
Loss: TypeAlias = Annotated[float, Field(ge=-1e30, le=1e30)]
Names: TypeAlias = Annotated[list[Name], Field(min_length=1, max_length=_MOST_LAYERS)]
Formats: TypeAlias = Annotated[
    list[Name], Field(min_length=1, max_length=_MOST_FORMATS, examples=[["fp32", "w8", "w4"]])
]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


@final
class PostedSensitivity(_Strict):
    """Loss of each layer (row) in each format (column)."""

    loss: Annotated[list[list[Loss]], Field(examples=[[[0.0, 0.1, 1.0], [0.0, 0.2, 5.0]]])]
    quantizers: Annotated[
        dict[Name, ActivationQuantizer],
        Field(description="Of each layer's input, where a format has static activations."),
    ] = {}


@final
class PostedCost(_Strict):
    """What each layer (row) spends in each format (column), in whole numbers."""

    amount: Annotated[
        dict[Resource, list[list[Amount]]],
        Field(
            min_length=1,
            examples=[{"weight_bytes": [[4000, 1000, 500], [4000, 1000, 500]]}],
        ),
    ]
    constant: dict[Resource, Amount] = {}


@final
class PostedTables(_Strict):
    """One sensitivity table and one cost table over the same layers and formats."""

    layers: Annotated[Names, Field(examples=[["encoder.0", "encoder.1"]])]
    formats: Formats
    sensitivity: PostedSensitivity
    cost: PostedCost

    def tables(self) -> Tables:
        """Return them as the solver takes them.

        Raises:
            DataError: A shape differs from layers times formats, or a name stands twice.
        """
        _check_names(self.layers, what="layers")
        _check_names(self.formats, what="formats")
        for name in self.formats:
            format_named(name)
        if self.formats[0] != "fp32":
            raise DataError(f"The formats are {self.formats}. Expected 'fp32' first. Reorder them.")
        _check_quantizers(self.layers, self.formats, quantizers=self.sensitivity.quantizers)
        shape = (len(self.layers), len(self.formats))
        loss = np.asarray(_rows(self.sensitivity.loss, shape=shape, what="loss"), dtype=np.float64)
        return (
            SensitivityTable(
                layers=tuple(self.layers),
                formats=tuple(self.formats),
                loss=loss,
                stderr=np.zeros_like(loss),
                metric="posted",
                unit="posted",
                quantizers=self.sensitivity.quantizers,
            ),
            (
                CostTable(
                    layers=tuple(self.layers),
                    formats=tuple(self.formats),
                    base="fp32",
                    placement="layer_inputs",
                    amount={
                        name: np.asarray(_rows(rows, shape=shape, what=name), dtype=np.int64)
                        for name, rows in self.cost.amount.items()
                    },
                    constant={str(name): value for name, value in self.cost.constant.items()},
                    support=((Support.NATIVE,) * shape[1],) * shape[0],
                    device=Device(name="posted", runtime="posted", threads=1),
                ),
            ),
        )


@final
class SolveRequest(_Strict):
    """Tables, by the job that measured them or posted, and budgets to solve them under."""

    job: Annotated[
        str | None,
        Field(
            pattern=r"^(jobs/)?[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$",
            description="Id or name of a job that succeeded.",
            examples=["01939f7e-7a5b-7c3d-9e1f-2a3b4c5d6e7f"],
        ),
    ] = None
    tables: PostedTables | None = None
    budgets: Budgets
    fixed: Fixed | None = None
    solver: Solver = "auto"

    @model_validator(mode="after")
    def _one_of_both(self) -> "SolveRequest":
        if (self.job is None) == (self.tables is None):
            raise ValueError("Expected either `job` or `tables`, and not both.")
        return self


def _check_names(names: list[str], *, what: str) -> None:
    if len(set(names)) < len(names):
        raise DataError(
            f"The {len(names)} {what} have only {len(set(names))} different names. Expected each "
            "once. Rename them."
        )


def _check_quantizers(
    layers: list[str], formats: list[str], *, quantizers: Mapping[str, ActivationQuantizer]
) -> None:
    static = [name for name in formats if format_named(name).is_static]
    lacking = [layer for layer in layers if layer not in quantizers]
    if static and lacking:
        raise DataError(
            f"Format {static[0]!r} quantises inputs, and {lacking[0]!r} has no quantizer. Expected "
            "one for each layer in `sensitivity.quantizers`. Add them, or leave the format out."
        )
    for layer, found in quantizers.items():
        if not all(map(math.isfinite, (found.scale, found.low, found.high))):
            raise DataError(
                f"The quantizer of {layer!r} is {found}. Expected finite numbers. Mend it."
            )


def _rows(
    rows: list[list[float]] | list[list[int]], *, shape: tuple[int, int], what: str
) -> list[list[float]] | list[list[int]]:
    found = {len(row) for row in rows}
    if len(rows) != shape[0] or found != {shape[1]}:
        raise DataError(
            f"Table {what!r} has {len(rows)} rows of {sorted(found)} numbers. Expected {shape[0]} "
            f"layers times {shape[1]} formats. Give one row per layer."
        )
    return rows
