"""The exact bytes of each layer in each format as they will lie in the exported file."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import onnx
from jaxtyping import Bool, Int
from numpy import ndarray

from mpsearch.core.formats import Granularity, TensorFormat, format_named
from mpsearch.core.graph import Layer, LayerGraph, Op, second_input
from mpsearch.core.plan import ActivationQuantizer, Plan
from mpsearch.cost.bops import repeats_weight
from mpsearch.export import export_plan, weight_bytes
from mpsearch.runtimes.one_layer import one_layer_onnx
from mpsearch.runtimes.one_product import one_product_onnx

_FLOAT_BYTES = 4  # the file keeps weights of both bases, and scales, in float32
_BITS_PER_BYTE = 8
_NONE: Final[Mapping[str, ActivationQuantizer]] = {}


def weight_bytes_table(
    graph: LayerGraph,
    *,
    formats: Sequence[str],
    allowed: Bool[ndarray, "L F"],
    base: onnx.ModelProto | None,
    base_precision: str,
    quantizers: Mapping[str, ActivationQuantizer] = _NONE,
) -> tuple[Int[ndarray, "L F"], int]:
    """Return bytes per layer and format, and those of everything else in the file.

    Codes and scales follow from shapes. What the exporter adds to a layer beside them
    (scale and zero point of its input) is read off a file of one such layer, once per
    signature and format. Layers that share a weight count it once, at the first of them.
    Without a `base` file there is nothing beside codes and scales.

    Args:
        graph: The layers.
        formats: The columns.
        allowed: Which pairs can be built; the others get the bytes of codes and scales.
        base: The base ONNX file.
        base_precision: The format in `formats` that leaves a layer as it is.
        quantizers: Of inputs by layer: some even out channels, by numbers that the file holds.
    """
    known: dict[tuple[str, str, tuple[int, ...]], int] = {}
    table = np.zeros((len(graph.layers), len(formats)), dtype=np.int64)
    repeated = repeats_weight(graph)
    for place, layer in enumerate(graph.layers):
        for column, name in enumerate(formats):
            stored = stored_bytes(layer, name)
            key = (layer.signature, name, _exponents(quantizers.get(layer.name)))
            asked = allowed[place, column] and not format_named(name).is_floating
            if base is not None and asked and key not in known:
                whole = _exported_bytes(layer, name, base=base_precision, exponents=key[-1])
                known[key] = whole - stored
            table[place, column] = known.get(key, 0) * layer.calls
            table[place, column] += 0 if repeated[place] else stored
    if base is None:
        return table, graph.other_parameters * _FLOAT_BYTES
    plain = Plan(assignment=dict.fromkeys(graph.names, base_precision), base=base_precision)
    in_all = weight_bytes(export_plan(base, plain))
    return table, in_all - int(table[:, formats.index(base_precision)].sum())


def stored_bytes(layer: Layer, format_name: str) -> int:
    """Return the bytes of a layer's weight: codes, rounded up to whole bytes, and scales.

    Asymmetric codes have a zero point, as wide as a code, beside each scale. A floating format
    is kept in float32, whatever the runtime then computes in.

    Example:
        >>> from mpsearch.core.graph import Op
        >>> layer = Layer(name="a", op=Op.LINEAR, weight_shape=(64, 256), input_shape=(1, 256),
        ...               output_shape=(1, 64), macs=64 * 256, inputs_from="x")
        >>> stored_bytes(layer, "w4g128")
        8704
    """
    if layer.op is Op.PRODUCT:
        return 0
    number = format_named(format_name).weight
    if number.is_plain:
        return layer.parameters * _FLOAT_BYTES
    scales = _scales(layer, number)
    zeros = 0 if number.symmetric else -(-scales * number.bits // _BITS_PER_BYTE)
    codes = -(-layer.parameters * number.bits // _BITS_PER_BYTE)
    return codes + scales * _FLOAT_BYTES + zeros


def _scales(layer: Layer, number: TensorFormat) -> int:
    if number.granularity is Granularity.TENSOR:
        return 1
    if number.granularity is Granularity.CHANNEL:
        return layer.weight_shape[0]
    assert number.group_size is not None
    return layer.weight_shape[0] * -(-layer.weight_shape[1] // number.group_size)


def _exponents(quantizer: ActivationQuantizer | None) -> tuple[int, ...]:
    """Return as many zeros as a quantiser has exponents: numbers do not matter to bytes."""
    return () if quantizer is None else (0,) * len(quantizer.exponents)


def _exported_bytes(
    layer: Layer, format_name: str, *, base: str, exponents: tuple[int, ...]
) -> int:
    """Return the bytes of a file that holds this layer alone; its numbers do not matter."""
    quantizer = ActivationQuantizer(
        scale=1.0,
        zero_point=0,
        low=0.0,
        high=1.0,
        method="none",
        samples=1,
        exponents=exponents,
    )
    names = (layer.name, second_input(layer.name))
    quantizers: Mapping[str, ActivationQuantizer] = dict.fromkeys(names, quantizer)
    plan = Plan(assignment={layer.name: format_name}, base=base, quantizers=quantizers)
    if layer.op is Op.PRODUCT:
        return weight_bytes(export_plan(one_product_onnx(layer), plan))
    weight = np.zeros(layer.weight_shape, dtype=np.float32)
    return weight_bytes(export_plan(one_layer_onnx(layer, weight, neighbour=False), plan))
