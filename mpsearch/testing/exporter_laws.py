"""Laws of every exporter: inherit the suite and say how the target tool reads the file."""

import copy
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import numpy as np
import onnx
import pytest
from numpy import ndarray

from mpsearch.core.files import plan_from_dict
from mpsearch.core.plan import Plan
from mpsearch.errors import FormatError, PlanError
from mpsearch.export import AbstractExporter
from mpsearch.testing.small_onnx import small_model

_TABLE_FORMATS: Final = ("fp32", "w8", "w4")
_LINEAR_FORMATS: Final = ("fp32", "w8a8", "w8", "w4", "w4g128")
_PLANS: Final = 12
# Both compute the same codes; sums of 128 products in another order differ in the last bits,
# which may move one code of an input by one: 1 / 255 of its range.
_TOLERANCE: Final = 0.02


def mixed_assignments() -> tuple[dict[str, str], ...]:
    """Return uniform and random assignments of the small model, each format in each place."""
    model, generator = small_model(), np.random.default_rng(0)
    uniform = [
        {name: (linear if name != "table" else table) for name in model.layers}
        for linear, table in zip(_LINEAR_FORMATS, ("fp32", "w8", "w8", "w4", "w4"), strict=True)
    ]
    mixed = [
        {
            name: str(generator.choice(_TABLE_FORMATS if name == "table" else _LINEAR_FORMATS))
            for name in model.layers
        }
        for _ in range(_PLANS)
    ]
    return (*uniform, *mixed)


class ExporterLaws(ABC):
    """What writing a plan's file must keep true, whatever tool it is for."""

    @abstractmethod
    def exporter(self) -> AbstractExporter:
        """Return the exporter under test."""

    @abstractmethod
    def load(self, model: onnx.ModelProto) -> object:
        """Open the file with the target tool's own loader; raise where it refuses."""

    @abstractmethod
    def formats_in(self, model: onnx.ModelProto) -> dict[str, str]:
        """Return {layer: format} as the file itself shows them."""

    @abstractmethod
    def run(self, model: onnx.ModelProto, inputs: Mapping[str, ndarray]) -> dict[str, ndarray]:
        """Return the outputs of the file by its standard's own meaning."""

    @pytest.mark.parametrize("assignment", mixed_assignments())
    def test_formats_come_back_from_the_file(self, assignment: dict[str, str]) -> None:
        model = small_model()
        for placement in sorted(self.exporter().placements):
            plan = model.plan(assignment, placement=placement)
            exported = self.exporter().export(model.onnx(), plan)
            assert self.formats_in(exported) == assignment
            self.load(exported)

    @pytest.mark.parametrize("assignment", mixed_assignments())
    def test_numbers_equal_the_simulation(self, assignment: dict[str, str]) -> None:
        model = small_model()
        inputs = model.inputs()
        for placement in sorted(self.exporter().placements):
            plan = model.plan(assignment, placement=placement)
            found = self.run(self.exporter().export(model.onnx(), plan), inputs)
            for name, expected in model.forward(plan, inputs).items():
                error = np.linalg.norm(found[name] - expected) / np.linalg.norm(expected)
                assert error < _TOLERANCE, (placement, name, error)

    def test_the_base_file_stays_as_it_is(self) -> None:
        model = small_model()
        base = model.onnx()
        before = copy.deepcopy(base)
        self.exporter().export(base, model.plan(dict.fromkeys(model.layers, "w8")))
        assert base == before

    def test_the_plan_travels_with_the_file(self) -> None:
        model = small_model()
        plan = replace(
            model.plan(dict.fromkeys(model.layers, "w8")), settings={"KEY": "value"}, gap=0.25
        )
        exported = self.exporter().export(model.onnx(), plan)
        facts = {entry.key: entry.value for entry in exported.metadata_props}
        assert plan_from_dict(json.loads(facts["mpsearch.plan"]), origin="file") == plan
        assert json.loads(facts["mpsearch.settings"]) == {"KEY": "value"}
        assert json.loads(facts["mpsearch.workloads"]) == []

    def test_a_plan_of_another_model_is_refused(self) -> None:
        model = small_model()
        full = dict.fromkeys(model.layers, "w8")
        for wrong in ({**full, "stranger": "w8"}, {"table": "w8"}):
            with pytest.raises(PlanError, match="another model"):
                self.exporter().export(model.onnx(), model.plan(wrong))

    def test_an_unknown_base_placement_or_quantiser_is_refused(self) -> None:
        model = small_model()
        plan = model.plan(dict.fromkeys(model.layers, "w8") | {"left": "w8a8"})
        base = model.onnx()
        bad: tuple[Plan, ...] = (
            replace(plan, base="fp64"),
            replace(plan, placement="everywhere"),
            replace(plan, quantizers={}),
            replace(plan, assignment={**plan.assignment, "out": "bf16"}),
        )
        for each in bad:
            with pytest.raises(PlanError):
                self.exporter().export(base, each)

    def test_a_format_that_the_layer_cannot_take_is_refused(self) -> None:
        model = small_model()
        full = dict.fromkeys(model.layers, "w8")
        for layer, name in (("table", "w8a8"), ("table", "w4g128"), ("left", "w3")):
            with pytest.raises(FormatError):
                self.exporter().export(model.onnx(), model.plan({**full, layer: name}))
