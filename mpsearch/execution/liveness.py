"""How many bytes of activations are alive at each step of a model, at full precision."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from mpsearch.execution.interpreter import evaluate, on_device_of, with_last_uses
from mpsearch.tracing.traced_model import TracedModel


@final
@dataclass(frozen=True, kw_only=True)
class Liveness:
    """Bytes alive while each node runs, by its name in order of execution.

    Alive are the inputs of the model and the results of nodes that this or a later node
    reads; parameters do not count, and views share the bytes of what they look at.
    """

    bytes_at: Mapping[str, int]

    @property
    def peak_bytes(self) -> int:
        """Return the most bytes alive at one step."""
        return max(self.bytes_at.values(), default=0)

    @property
    def peak_node(self) -> str:
        """Return the node during which most bytes are alive, the first of several."""
        return max(self.bytes_at, key=lambda name: self.bytes_at[name], default="")


def liveness(traced: TracedModel, batch: Mapping[str, Tensor]) -> Liveness:
    """Run a batch once and count what is alive at each step.

    A tensor lives from the node that makes it to the last that reads it, the model's outputs
    to the end. All activations of the pass are held in memory while it runs.

    Raises:
        DataError: An input is missing or has another shape than the graph takes.
    """
    held: list[torch.UntypedStorage] = []  # so that no two tensors share an address in turn
    owned: dict[fx.Node, dict[int, int]] = {}
    weights = {each.untyped_storage().data_ptr() for each in traced.module.state_dict().values()}

    def look(node: fx.Node, value: Any) -> Any:  # noqa: ANN401 - any node's value
        storages = [each.untyped_storage() for each in _tensors(value)]
        held.extend(storages)
        owned[node] = {
            each.data_ptr(): each.nbytes() for each in storages if each.data_ptr() not in weights
        }
        return value

    with torch.no_grad():
        evaluate(traced, on_device_of(traced, batch), after=look)
    nodes = tuple(traced.module.graph.nodes)
    alive: dict[fx.Node, dict[int, int]] = {}
    # The inputs are there before the first node runs.
    alive |= {node: owned[node] for node in nodes if node.op == "placeholder"}
    found: dict[str, int] = {}
    for node, spent in with_last_uses(nodes):
        alive[node] = owned.get(node, {})
        together: dict[int, int] = {}
        for storages in alive.values():
            together |= storages
        if node.op not in {"placeholder", "get_attr", "output"}:
            found[node.name] = sum(together.values())
        for each in spent:
            del alive[each]
    return Liveness(bytes_at=found)


def _tensors(value: object) -> list[Tensor]:
    return [each for each in pytree.tree_leaves(value) if isinstance(each, Tensor)]
