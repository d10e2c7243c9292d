"""How the weight of each kind of node lies in a file, and how to put its outputs first."""

from dataclasses import dataclass
from typing import final

from numpy import ndarray

from mpsearch.export.graph_edit import LayerNode


@final
@dataclass(frozen=True, kw_only=True)
class WeightLayout:
    """The initialiser of a layer's node against (outputs, inputs of each output, ...).

    With `inputs_first` its first two axes are swapped, so that outputs are along axis 1. With
    `groups` (2 or more) they are swapped within each part of axis 0.
    """

    inputs_first: bool = False
    groups: int = 0

    def outputs_first(self, weight: ndarray) -> ndarray:
        """Return the weight with its outputs first."""
        if self.groups:
            return swapped_in_groups(weight, groups=self.groups)
        return weight.swapaxes(0, 1) if self.inputs_first else weight


def layout_of(found: LayerNode) -> WeightLayout:
    """Return how the initialiser behind a layer's node lies."""
    given = {attribute.name: attribute.i for attribute in found.node.attribute}
    if found.node.op_type == "MatMul":
        return WeightLayout(inputs_first=not found.transposed)
    if found.node.op_type == "Gemm":
        return WeightLayout(inputs_first=bool(given.get("transB", 0)) == found.transposed)
    if found.node.op_type == "ConvTranspose":
        groups = given.get("group", 1)
        return WeightLayout(groups=groups) if groups > 1 else WeightLayout(inputs_first=True)
    return WeightLayout()


def swapped_in_groups(weight: ndarray, *, groups: int) -> ndarray:
    """Swap the two axes of channels within each group; twice gives the weight again.

    Example:
        >>> import numpy as np
        >>> swapped_in_groups(np.arange(8).reshape(4, 2, 1), groups=2)[:, :, 0].tolist()
        [[0, 2], [1, 3], [4, 6], [5, 7]]
    """
    rows, columns, *kernel = weight.shape
    parts = weight.reshape(groups, rows // groups, columns, *kernel).swapaxes(1, 2)
    return parts.reshape(groups * columns, rows // groups, *kernel)
