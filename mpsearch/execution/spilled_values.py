"""Node values of a pass, the oldest on disk where they do not fit in memory."""

import tempfile
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, fx


@final
class SpilledValues(MutableMapping[fx.Node, Any]):
    """A mapping that holds at most `limit_bytes` of tensors in memory; None means all.

    Tensors beyond the limit are written to a temporary folder, the first ones first, and
    read anew at each use. The folder goes with the object.
    """

    def __init__(self, limit_bytes: int | None = None) -> None:
        self._limit = limit_bytes
        self._held: dict[fx.Node, Any] = {}
        self._bytes = 0
        self._written: dict[fx.Node, _Written] = {}
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self.spilled_bytes = 0

    def __getitem__(self, node: fx.Node) -> Any:  # noqa: ANN401 - nodes give tensors, sizes, tuples
        if node in self._held:
            return self._held[node]
        written = self._written[node]
        raw = torch.from_numpy(np.fromfile(written.path, dtype=np.uint8))
        return raw.view(written.dtype).reshape(written.shape).permute(written.order)

    def __setitem__(self, node: fx.Node, value: Any) -> None:  # noqa: ANN401 - as above
        self._held[node] = value
        if self._limit is None or not _is_activation(node, value):
            return
        self._bytes += value.numel() * value.element_size()
        for each in list(self._held):
            if self._bytes <= self._limit:
                break
            if each is not node and _is_activation(each, self._held[each]):
                self._spill_(each)

    def __delitem__(self, node: fx.Node) -> None:
        value = self._held.pop(node, None)
        if self._limit is not None and _is_activation(node, value):
            self._bytes -= value.numel() * value.element_size()
        if node in self._written:
            self._written.pop(node).path.unlink()

    def __iter__(self) -> Iterator[fx.Node]:
        yield from self._held
        yield from self._written

    def __len__(self) -> int:
        return len(self._held) + len(self._written)

    def _spill_(self, node: fx.Node) -> None:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="mpsearch-activations-")
        value: Tensor = self._held.pop(node)
        path = Path(self._folder.name) / node.name
        # In the order of its strides, which operators behind it may rely on.
        strides = value.stride()
        order = sorted(range(value.ndim), key=lambda axis: -strides[axis])
        flat = value.detach().permute(order).contiguous()
        flat.reshape(-1).view(torch.uint8).numpy().tofile(path)
        self._written[node] = _Written(
            path=path,
            dtype=value.dtype,
            shape=tuple(flat.shape),
            order=tuple(order.index(axis) for axis in range(value.ndim)),
        )
        size = value.numel() * value.element_size()
        self._bytes -= size
        self.spilled_bytes += size


@dataclass(frozen=True, kw_only=True)
class _Written:
    """A tensor on disk, in C order of `shape`; its axes are `order` of those."""

    path: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
    order: tuple[int, ...]


def _is_activation(node: fx.Node, value: Any) -> bool:  # noqa: ANN401 - any node's value
    """Weights stay: they lie in memory anyway. So does what is on another device."""
    return isinstance(value, Tensor) and node.op != "get_attr" and value.device.type == "cpu"
