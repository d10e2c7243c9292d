"""A fitted model and the table made of it say the same."""

import numpy as np
import pytest

from mpsearch.core.hardware import Device, Support
from mpsearch.core.tables import CostTable
from mpsearch.cost import latency_table
from mpsearch.cost.node_table import LatencyModel

LAYERS, FORMATS = ("a", "b", "c"), ("fp32", "w8")


def test_the_table_spends_what_the_model_predicts() -> None:
    generator = np.random.default_rng(0)
    model = LatencyModel(
        layer=generator.uniform(1e-5, 1e-4, (3, 2)),
        edge=generator.uniform(-1e-5, 1e-5, (3, 2, 2)),
        producer=np.array([-1, 0, 0]),
        offset=3e-4,
        slope=1.7,
    )
    bare = CostTable(
        layers=LAYERS,
        formats=FORMATS,
        base="fp32",
        placement="layer_inputs",
        amount={},
        constant={},
        support=((Support.NATIVE,) * 2,) * 3,
        device=Device(name="d", runtime="r", threads=1),
    )
    table = latency_table._with_model(bare, model)
    assert table.edges == ((0, 1), (0, 2))
    for row in np.ndindex(2, 2, 2):
        assignment = {name: FORMATS[f] for name, f in zip(LAYERS, row, strict=True)}
        predicted = 1e9 * model.seconds(np.array([row]))[0]
        # Three layers, two edges and the offset are rounded to whole nanoseconds each.
        assert table.spend(assignment)["latency_ns"] == pytest.approx(predicted, abs=3)
