"""Which layers can be written in which formats at all."""

from mpsearch.core.formats import Format, Granularity
from mpsearch.core.graph import Layer, Op


def takes(layer: Layer, number: Format) -> bool:
    """Return whether a layer can be written in a format at all.

    Embeddings read whole numbers, so they take formats of weights only, with one scale per
    row or tensor. Groups need a matrix whose input size they divide, ranges that are found at
    run time a linear layer. A product of two activations has no weight to write.
    """
    weight, activation = number.weight, number.activation
    if layer.op is Op.PRODUCT:
        return number.is_floating or number.is_of_inputs
    is_grouped = weight.granularity is Granularity.GROUP
    if layer.op is Op.EMBEDDING:
        return number.is_floating or (activation is None and not is_grouped)
    is_dynamic = activation is not None and activation.dynamic
    if layer.op is not Op.LINEAR:
        return not (is_grouped or is_dynamic)
    size = weight.group_size
    return not is_grouped or (size is not None and layer.weight_shape[1] % size == 0)
