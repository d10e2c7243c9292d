"""The values of one full-precision pass, so that a change recomputes only what it reaches."""

from collections.abc import Mapping
from typing import Any, final

import torch
from torch import Tensor, fx

from mpsearch.errors import MeasurementError
from mpsearch.execution.interpreter import (
    NO_OVERRIDES,
    Override,
    node_value,
    on_device_of,
    raw_output,
    weight_shapes,
    with_last_uses,
)
from mpsearch.execution.spilled_values import SpilledValues
from mpsearch.tracing.operators import argument, layer_operator
from mpsearch.tracing.trace import layer_macs
from mpsearch.tracing.traced_model import TracedModel


@final
class PrefixStore:
    """All node values of one pass over one batch: that of fp32, or with `around` of a plan.

    `full_macs` are the multiply-accumulates of a whole pass over this batch, `macs` those
    that were run so far, the reference pass included. Memory: every activation once, or
    `limit_bytes` of them and the rest on disk.
    """

    def __init__(
        self,
        traced: TracedModel,
        batch: Mapping[str, Tensor],
        *,
        around: Mapping[str, Override] = NO_OVERRIDES,
        limit_bytes: int | None = None,
    ) -> None:
        self._traced = traced
        self._around = around
        self._nodes: tuple[fx.Node, ...] = tuple(traced.module.graph.nodes)
        self._values = SpilledValues(limit_bytes)
        self._weights = weight_shapes(traced)
        self.macs = 0
        inputs = iter(traced.inputs(on_device_of(traced, batch)))
        with torch.no_grad():
            for node in self._nodes:
                if node.op == "placeholder":
                    self._values[node] = next(inputs)
                elif node.op != "output":
                    self._values[node] = self._computed(
                        node, self._values, override=around.get(node.name)
                    )
        self.full_macs = self.macs

    @property
    def spilled_bytes(self) -> int:
        """Return how much of the activations lies on disk."""
        return self._values.spilled_bytes

    @property
    def output(self) -> Any:  # noqa: ANN401 - models return tensors, tuples, dicts
        """Return the model's raw output of the stored pass."""
        return raw_output(self._traced, self._nodes[-1], values=self._values)

    def rerun(self, overrides: Mapping[str, Override]) -> Any:  # noqa: ANN401 - as `output`
        """Return the raw output with some nodes computed otherwise.

        Only these nodes and those that read them, directly or not, are computed. The
        stored values stay as they are.
        """
        reached = self._reached(overrides)
        fresh: dict[fx.Node, Any] = {}
        values = _Layered(fresh, self._values)
        with torch.no_grad():
            for node, spent in with_last_uses(reached):
                if node.op == "output":
                    break
                override = overrides.get(node.name, self._around.get(node.name))
                fresh[node] = self._computed(node, values, override=override)
                for each in spent:
                    del fresh[each]
        return raw_output(self._traced, self._nodes[-1], values=values)

    def check_finite(self) -> None:
        """Refuse a pass in which a layer gave numbers that are not finite.

        Raises:
            MeasurementError: Names the first such layer in order of execution.
        """
        layer_of = {node: name for name, nodes in self._traced.nodes.items() for node in nodes}
        for node in self._nodes:
            value = self._values[node] if node.name in layer_of else None
            if not isinstance(value, Tensor):
                continue
            broken = ~torch.isfinite(value)
            if bool(broken.any()):
                raise MeasurementError(
                    f"Layer {layer_of[node.name]!r} gives {int(broken.sum())} numbers of "
                    f"{value.numel()} that are NaN or infinite, the first layer to do so. Expected "
                    "finite activations at full precision. Check the data and the model's weights."
                )

    def _reached(self, overrides: Mapping[str, Override]) -> tuple[fx.Node, ...]:
        """Return, in order, the changed nodes and all that depend on them, and the output."""
        reached: dict[fx.Node, None] = {}
        for node in self._nodes:
            if node.name in overrides or any(each in reached for each in node.all_input_nodes):
                reached[node] = None
        reached[self._nodes[-1]] = None
        return tuple(reached)

    def _computed(
        self, node: fx.Node, values: "Mapping[fx.Node, Any]", *, override: Override | None
    ) -> Any:  # noqa: ANN401 - nodes give tensors, sizes, tuples
        value = node_value(self._traced, node, values=values, override=override)
        if node.name in self._weights:
            op, shape = self._weights[node.name]
            given = _shape_of_input(node, values=values)
            self.macs += layer_macs(op, weight=shape, given=given, output=tuple(value.shape))
        return value


def _shape_of_input(node: fx.Node, *, values: Mapping[fx.Node, Any]) -> tuple[int, ...]:
    operator = layer_operator(node)
    source = None if operator is None else argument(node, operator.input)
    return () if source is None else tuple(values[source].shape)


class _Layered(Mapping[fx.Node, Any]):
    """Fresh values before the stored ones, without copying either."""

    def __init__(self, fresh: Mapping[fx.Node, Any], stored: Mapping[fx.Node, Any]) -> None:
        self._fresh, self._stored = fresh, stored

    def __getitem__(self, node: fx.Node) -> Any:  # noqa: ANN401 - as stored
        return self._fresh[node] if node in self._fresh else self._stored[node]

    def __iter__(self) -> Any:  # noqa: ANN401 - an iterator of nodes
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)
