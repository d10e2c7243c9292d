"""One forward pass that gives the gradient at every layer's output, one backward per question."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, final

import torch
from jaxtyping import Float
from torch import Tensor, fx
from torch.utils.hooks import RemovableHandle

from mpsearch.execution.interpreter import Override, evaluate, on_device_of
from mpsearch.execution.sample_axis import SampleAxes
from mpsearch.tracing.operators import operator_name
from mpsearch.tracing.traced_model import TracedModel


@final
@dataclass(frozen=True, kw_only=True)
class Tap:
    """What a pass over `samples` samples gave at a node that runs a layer.

    `value` is the output, `gradient` that of the backward pass under way.
    """

    node: fx.Node
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    value: Float[Tensor, "..."]
    samples: int
    gradient: Float[Tensor, "..."] | None = None


Use: TypeAlias = Callable[[Tap], None]


@final
class TappedPass:
    """A full-precision pass over one batch with a tap at each node that runs a layer.

    `output` is the raw output and can be differentiated. Weights get no gradient, so a
    backward pass costs what the forward pass cost.
    """

    def __init__(
        self, traced: TracedModel, batch: Mapping[str, Tensor], *, axes: SampleAxes
    ) -> None:
        self._samples = len(next(iter(batch.values())))
        self._shared = axes.shared
        self._first: list[Tensor] = []
        self._handles: list[RemovableHandle] = []
        self._use: Use | None = None
        taps = {name for nodes in traced.nodes.values() for name in nodes}
        overrides: dict[str, Override] = {}
        for node in traced.module.graph.nodes:
            if node.name in taps:
                overrides[node.name] = self._tapped(node)
            elif operator_name(node) == "aten.detach":
                # Quantising changes what lies behind a detached value all the same.
                overrides[node.name] = _as_it_is
        with torch.enable_grad():
            self.output: Any = evaluate(
                traced, on_device_of(traced, batch), overrides=overrides, after=_without_gradient
            )

    def backward(
        self,
        output: Float[Tensor, "S ..."],
        *,
        direction: Float[Tensor, "S ..."],
        use: Use,
        is_last: bool,
    ) -> None:
        """Hand the gradient of sum(direction x output) at each layer's output to `use`.

        `output` was computed from `self.output`. Nodes that it does not depend on are left
        out. Gradients go as soon as they are used; `is_last` frees the graph.
        """
        self._use = use
        try:
            torch.autograd.grad(
                output, self._first, direction, retain_graph=not is_last, allow_unused=True
            )
        finally:
            self._use = None
            if is_last:
                self._let_go_()

    def _let_go_(self) -> None:
        """Break the ring of values, hooks and this pass, which would outlive it."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._first.clear()
        self.output = None

    def _tapped(self, node: fx.Node) -> Override:
        operator: Any = node.target

        def compute(*args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401 - an operator's arguments
            value = operator(*args, **kwargs)
            assert isinstance(value, Tensor)
            if node.name in self._shared:
                value = value.expand(self._samples, *value.shape[1:])
            tap = Tap(
                node=node,
                args=tuple(_plain(each) for each in args),
                kwargs={key: _plain(each) for key, each in kwargs.items()},
                value=value.detach(),
                samples=self._samples,
            )
            if not value.requires_grad:
                value = value.detach().requires_grad_()
                self._first.append(value)
            handle = value.register_hook(lambda gradient: self._hand(tap, gradient))  # type: ignore[no-untyped-call]  # torch leaves it untyped
            self._handles.append(handle)
            return value

        return compute

    def _hand(self, tap: Tap, gradient: Tensor) -> None:
        if self._use is not None:
            self._use(replace(tap, gradient=gradient.detach()))


def _as_it_is(value: Tensor) -> Tensor:
    return value


def _plain(value: Any) -> Any:  # noqa: ANN401 - any argument
    return value.detach() if isinstance(value, Tensor) else value


def _without_gradient(node: fx.Node, value: Any) -> Any:  # noqa: ANN401 - any node's value
    return value.detach() if node.op == "get_attr" and isinstance(value, Tensor) else value
