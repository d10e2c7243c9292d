"""What every exporter is: a plan and the base ONNX file go in, a checked file comes out."""

from abc import ABC, abstractmethod
from typing import ClassVar, final

import onnx

from mpsearch.core.formats import BASES, format_named
from mpsearch.core.plan import Plan
from mpsearch.errors import PlanError
from mpsearch.export.graph_edit import layer_nodes

_SHOWN = 3  # names in a message


class AbstractExporter(ABC):
    """Turns a plan into a file that a runtime or another tool reads."""

    name: ClassVar[str]
    placements: ClassVar[frozenset[str]]

    @final
    def export(self, base: onnx.ModelProto, plan: Plan) -> onnx.ModelProto:
        """Return a new file in which each layer has the plan's format; `base` stays as it is.

        Raises:
            PlanError: The plan is of another model, lacks a quantiser, or mixes bases.
            FormatError: A layer cannot take its format.
            ModelError: The base file has no marked layers.
        """
        self._check(base, plan)
        made = self._export(base, plan)
        onnx.checker.check_model(made)
        return made

    @abstractmethod
    def _export(self, base: onnx.ModelProto, plan: Plan) -> onnx.ModelProto: ...

    def _check(self, base: onnx.ModelProto, plan: Plan) -> None:
        layers = {found.layer for found in layer_nodes(base)}
        missing, unknown = layers - set(plan.assignment), set(plan.assignment) - layers
        if missing or unknown:
            raise PlanError(
                f"The plan is of another model: {len(missing)} layers of the file have no format "
                f"{sorted(missing)[:_SHOWN]}, {len(unknown)} layers of the plan are not in the "
                f"file {sorted(unknown)[:_SHOWN]}. Expected the same {len(layers)} layers. Export "
                "with the model that the plan was made for."
            )
        if plan.base not in BASES:
            raise PlanError(
                f"The plan's base is {plan.base!r}. Expected one of {', '.join(BASES)}. "
                "Search again."
            )
        if plan.placement not in self.placements:
            raise PlanError(
                f"The plan places quantisers by {plan.placement!r}. Expected one of "
                f"{', '.join(sorted(self.placements))}, which exporter {self.name!r} knows. "
                "Search again, or take another exporter."
            )
        for layer, name in plan.assignment.items():
            if format_named(name).is_floating and name != plan.base:
                raise PlanError(
                    f"Layer {layer!r} is in {name!r} under base {plan.base!r}. Expected the base "
                    "or an integer format: runtimes mix the two bases by chance only. Change "
                    "the layer's format or the plan's base."
                )
