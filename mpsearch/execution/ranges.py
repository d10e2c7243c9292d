"""Observes the inputs of layers and turns their ranges into quantisers."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Final

import numpy as np
import torch
from pydantic import TypeAdapter
from torch import Tensor, fx

from mpsearch.core.cache import Cache, content_hash
from mpsearch.core.graph import Op, is_product_name, second_input
from mpsearch.core.plan import ActivationQuantizer
from mpsearch.core.progress import Progress, tracked
from mpsearch.errors import MeasurementError
from mpsearch.execution.channels import observe_exponents
from mpsearch.execution.interpreter import evaluate, on_device_of
from mpsearch.execution.products import quantiser_places
from mpsearch.quant.ranges import (
    DEFAULT_RANGE_METHOD,
    SMOOTHED,
    RangeObserver,
    activation_quantizer,
    without_offset,
)
from mpsearch.quant.smoothing import smoothing_factors
from mpsearch.tasks.dataset import Dataset
from mpsearch.tracing.operators import argument, layer_operator
from mpsearch.tracing.traced_model import TracedModel

_KIND: Final = "ranges"
_REVISION: Final = 1  # raise it when the same data would give other ranges


def observe_ranges(
    traced: TracedModel,
    data: Dataset,
    *,
    method: str = DEFAULT_RANGE_METHOD,
    layers: Sequence[str] | None = None,
    cache: Cache | None = None,
    progress: Progress | None = None,
) -> dict[str, ActivationQuantizer]:
    """Run the data once at full precision; return a quantiser of each layer's input.

    Embeddings read whole numbers and have none. A layer that runs several times has one
    quantiser for all its inputs. Layers that read the same tensor get equal ones. A product
    of two activations has two quantisers without offsets, see `second_input`.

    Args:
        traced: The model.
        data: Calibration data.
        method: A key of `quant.ranges.RANGE_METHODS`.
        layers: Only these; None means all.
        cache: Where results are kept; None keeps nothing.
        progress: Told after each batch.

    Raises:
        MeasurementError: An input is not finite; names the layer.
    """
    wanted = [
        layer.name
        for layer in traced.graph.layers
        if layer.op is not Op.EMBEDDING and (layers is None or layer.name in layers)
    ]
    key = content_hash(_REVISION, traced.graph.fingerprint, data.fingerprint, method, wanted)
    stored = None if cache is None else cache.get(_KIND, key)
    if stored is not None:
        return TypeAdapter(dict[str, ActivationQuantizer]).validate_python(stored)
    observers: dict[str, RangeObserver] = {}
    watched: dict[str, list[tuple[str, RangeObserver]]] = {}
    exponents: Mapping[str, tuple[int, ...]] = {}
    if method == SMOOTHED:
        exponents = observe_exponents(traced, data, layers=wanted, progress=progress)
    for layer in wanted:
        for tensor, source in _sources(traced, layer):
            observer = observers.setdefault(source, RangeObserver(method=method))
            watched.setdefault(tensor, []).append((layer, observer))
    for batch in tracked(data, "observe ranges", total=len(data), progress=progress):
        _observe_(traced, batch, watched=watched, exponents=exponents)
    found = {
        source: replace(_quantizer(source, seen), exponents=exponents.get(source, ()))
        for source, seen in observers.items()
    }
    if cache is not None:
        cache.put(_KIND, key, value={name: asdict(each) for name, each in found.items()})
    return found


def _sources(traced: TracedModel, layer: str) -> Iterator[tuple[str, str]]:
    """Yield the tensors that a layer's nodes read, each with the key of its quantiser."""
    found = traced.graph.layers[traced.graph.index(layer)]
    nodes = {node.name: node for node in traced.module.graph.nodes}
    for name in traced.nodes[layer]:
        operator = layer_operator(nodes[name])
        assert operator is not None
        for key, place in quantiser_places(found, place=operator.input).items():
            source = argument(nodes[name], place)
            if source is not None:
                yield source.name, key


def _quantizer(key: str, observer: RangeObserver) -> ActivationQuantizer:
    found = activation_quantizer(observer)
    if not is_product_name(key):
        return found
    # No kernel adds offsets to products, and the second input is signed in all of them.
    return without_offset(found, is_signed=key.endswith(second_input("")))


def _observe_(
    traced: TracedModel,
    batch: Mapping[str, Tensor],
    *,
    watched: Mapping[str, Sequence[tuple[str, RangeObserver]]],
    exponents: Mapping[str, tuple[int, ...]],
) -> None:
    samples = len(next(iter(batch.values())))

    def look(node: fx.Node, value: Any) -> Any:  # noqa: ANN401 - any node's value
        for layer, observer in watched.get(node.name, ()):
            numbers: np.ndarray = value.detach().cpu().float().numpy()
            if layer in exponents:
                numbers = numbers / smoothing_factors(exponents[layer])
            try:
                observer.observe_(numbers, samples=samples)
            except MeasurementError as error:
                raise MeasurementError(f"Input of layer {layer!r}: {error}") from error
        return value

    with torch.no_grad():
        evaluate(traced, on_device_of(traced, batch), after=look)
