"""What storing a layer's weight in each of several formats adds to it."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final, final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mpsearch.core.formats import Format
from mpsearch.core.graph import Op
from mpsearch.core.plan import ActivationQuantizer
from mpsearch.execution.interpreter import Override
from mpsearch.execution.overrides import layer_override
from mpsearch.execution.smoothed import stored_weight
from mpsearch.tracing.traced_model import TracedModel
from mpsearch.tracing.weight_layout import outputs_first

_KEPT_BYTES: Final = 2**30  # unless a limit is given
_FLOAT_BYTES: Final = 4


def changes_weight_only(op: Op, number: Format, *, dynamic_group: int | None) -> bool:
    """Return whether the format leaves the layer's input as it is.

    Then the output changes by the operator applied to the change of the weight.
    """
    is_dynamic = op is Op.LINEAR and dynamic_group is not None
    return number.activation is None and not number.is_floating and not is_dynamic


@final
class WeightChanges:
    """Weights as formats store them, less the weights; made at the first need.

    Kept in memory are `limit_bytes` in all, 1 GiB for None; the rest lies in a temporary
    folder, which goes with the object.
    """

    def __init__(
        self,
        traced: TracedModel,
        formats: Mapping[str, Format],
        *,
        quantizers: Mapping[str, ActivationQuantizer],
        dynamic_group: int | None,
        limit_bytes: int | None = None,
    ) -> None:
        self._traced = traced
        self._formats = formats
        self._quantizers = quantizers
        self._dynamic_group = dynamic_group
        self._left = _KEPT_BYTES if limit_bytes is None else limit_bytes
        self._changes: dict[tuple[str, str], Tensor] = {}
        self._overrides: dict[tuple[str, str], dict[str, Override]] = {}
        self._written: dict[tuple[str, str], Path] = {}
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        nodes = {node.name: node for node in traced.module.graph.nodes}
        self._first = {layer: nodes[names[0]] for layer, names in traced.nodes.items()}

    def weight(self, layer: str) -> Float[Tensor, "O ..."]:
        """Return the weight as (outputs, inputs, ...); rows of an embedding come first."""
        return outputs_first(self._first[layer], self._traced.weight(layer).detach())

    def change(self, layer: str, name: str) -> Float[Tensor, "O ..."]:
        """Return what the format adds to the weight, as (outputs, inputs, ...)."""
        key = (layer, name)
        if key in self._changes:
            return self._changes[key]
        weight = self.weight(layer)
        if key in self._written:
            written = np.fromfile(self._written[key], dtype=np.float32)
            return torch.from_numpy(written).reshape(weight.shape).to(weight.device)
        quantizer = self._quantizers.get(layer)
        stored = stored_weight(weight, self._formats[name], quantizer=quantizer, name=layer)
        change = stored - weight
        if self._fits(layer):
            self._changes[key] = change
        else:
            self._written[key] = self._write(change)
        return change

    def overrides(self, layer: str, name: str) -> dict[str, Override]:
        """Return `layer_override` of the layer in the format."""
        key = (layer, name)
        if key in self._overrides:
            return self._overrides[key]
        made = layer_override(
            self._traced,
            layer,
            number=self._formats[name],
            quantizers=self._quantizers,
            dynamic_group=self._dynamic_group,
        )
        if self._fits(layer):
            self._overrides[key] = made
        return made

    def _write(self, change: Tensor) -> Path:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="mpsearch-weights-")
        path = Path(self._folder.name) / str(len(self._written))
        change.cpu().contiguous().numpy().tofile(path)
        return path

    def _fits(self, layer: str) -> bool:
        size = _FLOAT_BYTES * self._traced.weight(layer).numel()
        if size > self._left:
            return False
        self._left -= size
        return True
