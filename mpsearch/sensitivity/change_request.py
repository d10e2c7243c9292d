"""What changes of the output are asked for, and how a changed layer is computed."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import final

from torch import Tensor

from mpsearch.core.cache import content_hash
from mpsearch.core.formats import format_named
from mpsearch.core.graph import Op
from mpsearch.core.plan import ActivationQuantizer
from mpsearch.execution import layer_override
from mpsearch.execution.interpreter import Override
from mpsearch.execution.products import quantisers_hashed
from mpsearch.sensitivity.divergence import Divergence
from mpsearch.sensitivity.output_cut import plain_override
from mpsearch.tasks import AbstractTask, Batch, Dataset
from mpsearch.tracing import TracedModel


@final
@dataclass(frozen=True, kw_only=True)
class ChangeRequest:
    """The model, its output, the data, and how layers may be changed, one at a time.

    `around` is the assignment that is changed; a layer that it does not name is at full
    precision. `pairs` maps layers to the formats to try. `temperature` is that of
    `Divergence`.
    """

    traced: TracedModel
    task: AbstractTask
    data: Dataset
    pairs: Mapping[str, Sequence[str]]
    around: Mapping[str, str] = field(default_factory=dict)
    quantizers: Mapping[str, ActivationQuantizer] = field(default_factory=dict)
    dynamic_group: int | None = None
    temperature: float = 1.0

    @property
    def key(self) -> str:
        """Hash the model and the assignment that is changed."""
        around = {layer: self.format_key(layer, name) for layer, name in self.around.items()}
        return content_hash(self.traced.graph.fingerprint, around, self.temperature)

    def overrides(self, layer: str, name: str) -> dict[str, Override]:
        """Return, for each node of a layer, how to compute it in a format, full precision too."""
        found = layer_override(
            self.traced,
            layer,
            number=format_named(name),
            quantizers=self.quantizers,
            dynamic_group=self.dynamic_group,
        )
        nodes = {node.name: node for node in self.traced.module.graph.nodes}
        return found or {node: plain_override(nodes[node]) for node in self.traced.nodes[layer]}

    def plan_overrides(self, assignment: Mapping[str, str]) -> dict[str, Override]:
        """Return how to compute every layer of an assignment."""
        return {
            node: override
            for layer, name in assignment.items()
            for node, override in self.overrides(layer, name).items()
        }

    def divergence(self, reference: Tensor, batch: Batch) -> Divergence:
        """Return how far outputs of a batch are from the reference."""
        return Divergence(self.task, reference=reference, batch=batch, temperature=self.temperature)

    def format_key(self, layer: str, name: str) -> str:
        """Hash all that decides what a format does to a layer."""
        number = format_named(name)
        first, others = quantisers_hashed(layer, number=number, quantizers=self.quantizers)
        is_linear = self.traced.graph.layers[self.traced.graph.index(layer)].op is Op.LINEAR
        is_dynamic = is_linear and number.activation is None and not number.is_floating
        return content_hash(
            dataclasses.asdict(number),
            first,
            self.dynamic_group if is_dynamic else None,
            *others,
        )
