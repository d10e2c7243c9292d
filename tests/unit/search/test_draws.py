"""Directions are added for as long as they change the plan, never beyond what is paid for."""

import numpy as np
import pytest

from mpsearch.core.tables import SensitivityTable
from mpsearch.search.draws import drawn_until_stable


def table(draws: int) -> SensitivityTable:
    """Return a table that knows how many draws it is from."""
    return SensitivityTable(
        layers=("a",),
        formats=("w4",),
        loss=np.array([[float(draws)]]),
        stderr=np.zeros((1, 1)),
        metric="output_probe",
        unit="squared output",
    )


@pytest.mark.parametrize(
    ("settles_at", "most", "wanted"),
    [(1, 100, 6), (6, 100, 12), (12, 100, 24), (50, 20, 20)],
)
def test_draws_double_until_the_plan_stays(*, settles_at: int, most: int, wanted: int) -> None:
    measured: list[int] = []

    def measure(draws: int) -> SensitivityTable:
        measured.append(draws)
        return table(draws)

    def plan_of(found: SensitivityTable) -> tuple[int, ...]:
        return (min(int(found.loss[0, 0]), settles_at),)

    drawn = drawn_until_stable(measure, plan_of=plan_of, first=3, most=most)
    assert drawn.draws == wanted == measured[-1]
    assert drawn.table.loss[0, 0] == wanted
    assert measured == sorted(set(measured))


@pytest.mark.parametrize("most", [1, 2, 3])
def test_what_cannot_be_paid_is_not_drawn(most: int) -> None:
    drawn = drawn_until_stable(table, plan_of=lambda _: None, first=3, most=most)
    assert drawn.draws == most
