"""How far formats move the weights of each layer."""

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from mpsearch.core.progress import tracked
from mpsearch.execution.smoothed import stored_weight
from mpsearch.execution.weight_changes import WeightChanges
from mpsearch.sensitivity.request import Request


def weight_errors(request: Request, *, is_relative: bool) -> Float64[ndarray, "L F"]:
    """Return |W - stored W|^2 of each pair, NaN where none is asked for.

    With `is_relative` it is divided by |W|^2; a weight of zeros loses nothing.
    """
    layers, formats = request.traced.graph.names, list(request.formats)
    changes = WeightChanges(
        request.traced,
        request.formats,
        quantizers=request.quantizers,
        dynamic_group=request.dynamic_group,
    )
    errors = np.full((len(layers), len(formats)), np.nan)
    rows = tracked(
        enumerate(layers), "compare weights", total=len(layers), progress=request.progress
    )
    for row, layer in rows:
        if not request.pairs[layer]:
            continue
        weight = changes.weight(layer)
        whole = float(weight.double().square().sum()) if is_relative else 1.0
        for name in request.pairs[layer]:
            quantizer = request.quantizers.get(layer)
            stored = stored_weight(weight, request.formats[name], quantizer=quantizer, name=layer)
            error = float((stored - weight).double().square().sum())
            errors[row, formats.index(name)] = error / whole if whole else 0.0
    return errors
