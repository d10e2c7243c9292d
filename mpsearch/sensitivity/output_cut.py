"""Where changes of layers meet on their way to the output, and the rest of the graph from there.

Changes nearly add up in the tensor that enters the last normalisation, so they are kept
there and the remaining operators are applied to their sum.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

import torch
from torch import Tensor, fx

from mpsearch.execution.interpreter import (
    NO_OVERRIDES,
    Override,
    evaluate,
    node_value,
    on_device_of,
    raw_output,
)
from mpsearch.tracing import TracedModel

# More layers behind the cut would be computed anew for every plan that is scored.
_LAYERS_BEHIND: Final = 1


@final
@dataclass(frozen=True, kw_only=True)
class OutputCut:
    """The node through which every change before it reaches the output.

    `behind` are the layers after it, whose formats a prediction computes as they are;
    `numbers` is how many numbers the node holds for the example, per sample.
    """

    node: str
    behind: tuple[str, ...]
    numbers: int


def find_cut(traced: TracedModel, layers: Sequence[str]) -> OutputCut | None:
    """Return the narrowest cut, before a normalisation rather than behind it.

    At most one of `layers` lies behind it (a language model's head, say). None where changes
    reach the output on several ways that never meet, as with several outputs.
    """
    nodes = tuple(traced.module.graph.nodes)
    layer_at = {node: layer for layer in layers for node in traced.nodes[layer]}
    changed = _descendants(nodes, lambda node: node.name in layer_at)
    sizes = _sizes(traced)
    last_use = _last_uses(nodes)
    found: list[tuple[int, OutputCut]] = []
    open_until = -1
    for place, node in enumerate(nodes[:-1]):
        meets = node in changed and node.name in sizes and open_until <= place
        if node in changed:
            open_until = max(open_until, last_use.get(node, place))
        behind = {layer_at[n.name] for n in nodes[place + 1 :] if n.name in layer_at}
        if meets and len(behind) <= _LAYERS_BEHIND:
            cut = OutputCut(node=node.name, behind=tuple(sorted(behind)), numbers=sizes[node.name])
            found.append((place, cut))
    if not found:
        return None
    narrow = min(cut.numbers for _, cut in found)
    last = [cut for _, cut in found if cut.numbers == narrow][-1]
    # Upstream as far as the same layers lie behind: before the norm, not after it.
    return next(cut for _, cut in found if cut.numbers == narrow and cut.behind == last.behind)


@final
class Tail:
    """The graph from the cut on, for one batch: what it needs of the pass before is kept."""

    def __init__(self, traced: TracedModel, batch: Mapping[str, Tensor], *, cut: OutputCut) -> None:
        self._traced = traced
        nodes = tuple(traced.module.graph.nodes)
        names = {node for layer in cut.behind for node in traced.nodes[layer]}
        at = next(place for place, node in enumerate(nodes) if node.name == cut.node)
        self._cut = nodes[at]
        changed = _descendants(nodes[at:], lambda node: node is nodes[at] or node.name in names)
        self._nodes = [node for node in nodes[at + 1 :] if node in changed]
        needed = {each for node in self._nodes for each in node.all_input_nodes} - changed
        self._kept: dict[fx.Node, Any] = {}

        def keep(node: fx.Node, value: Any) -> Any:  # noqa: ANN401 - nodes give tensors, sizes, tuples
            if node in needed or node is self._cut:
                self._kept[node] = value
            return value

        with torch.no_grad():
            self.raw = evaluate(traced, on_device_of(traced, batch), after=keep)
        self.value: Tensor = self._kept[self._cut]

    @property
    def is_empty(self) -> bool:
        """Return whether the cut is the model's output."""
        return all(node.op == "output" for node in self._nodes)

    def run(self, value: Tensor, *, overrides: Mapping[str, Override] = NO_OVERRIDES) -> Any:  # noqa: ANN401 - models return tensors, tuples, dicts
        """Return the model's raw output if the cut held `value`."""
        values = {**self._kept, self._cut: value}
        with torch.no_grad():
            for node in self._nodes:
                if node.op == "output":
                    return raw_output(self._traced, node, values=values)
                values[node] = node_value(
                    self._traced, node, values=values, override=overrides.get(node.name)
                )
        return self.raw


def watching(
    traced: TracedModel, cut: OutputCut, *, overrides: Mapping[str, Override], seen: list[Tensor]
) -> dict[str, Override]:
    """Return the overrides with one at the cut that also notes the value there in `seen`."""
    node = next(node for node in traced.module.graph.nodes if node.name == cut.node)
    compute = overrides.get(cut.node) or plain_override(node)

    def noted(*args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401 - an operator's arguments
        value = compute(*args, **kwargs)
        seen.append(value)
        return value

    return {**overrides, cut.node: noted}


def plain_override(node: fx.Node) -> Override:
    """Return what the node computes anyway, as an override."""
    if node.op == "call_method":
        return lambda this, *args, **kwargs: getattr(this, str(node.target))(*args, **kwargs)
    assert callable(node.target), node
    return node.target


def _descendants(nodes: Sequence[fx.Node], starts: Callable[[fx.Node], bool]) -> set[fx.Node]:
    found: set[fx.Node] = set()
    for node in nodes:
        if starts(node) or any(each in found for each in node.all_input_nodes):
            found.add(node)
    return found


def _last_uses(nodes: Sequence[fx.Node]) -> dict[fx.Node, int]:
    """Return where each node is read last by a node that leads to the output."""
    needed = {nodes[-1]}
    for node in reversed(nodes):
        if node in needed:
            needed.update(node.all_input_nodes)
    return {
        each: place
        for place, node in enumerate(nodes)
        if node in needed
        for each in node.all_input_nodes
    }


def _sizes(traced: TracedModel) -> dict[str, int]:
    """Return how many numbers each node holds per sample; of floating tensors of samples only."""
    samples = len(next(iter(traced.example.values())))
    sizes: dict[str, int] = {}

    def note(node: fx.Node, value: Any) -> Any:  # noqa: ANN401 - nodes give tensors, sizes, tuples
        is_rows = isinstance(value, Tensor) and value.ndim > 0 and len(value) == samples
        if is_rows and value.is_floating_point() and node.op.startswith("call_"):
            sizes[node.name] = value.numel() // samples
        return value

    with torch.no_grad():
        evaluate(traced, on_device_of(traced, traced.example), after=note)
    return sizes
