"""Products of two activations: which tensors they read, and what they compute in a format."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

from torch import Tensor, fx

from mpsearch.core.formats import Format
from mpsearch.core.graph import Layer, Op, second_input
from mpsearch.core.plan import ActivationQuantizer
from mpsearch.errors import MeasurementError
from mpsearch.execution.inputs import rounded_input
from mpsearch.execution.interpreter import Override

_SIDES: Final = 2


def quantiser_places(layer: Layer, *, place: int) -> dict[str, int]:
    """Return, by the key of a quantiser, which argument of a layer's node it is of.

    A product has two, its first and second; other layers have one, at `place`.
    """
    if layer.op is Op.PRODUCT:
        return {layer.name: 0, second_input(layer.name): 1}
    return {layer.name: place}


def quantisers_of(
    layer: str, quantizers: Mapping[str, ActivationQuantizer]
) -> tuple[ActivationQuantizer, ...]:
    """Return the quantisers of a layer's inputs: none, one, or the two of a product."""
    keys = (layer, second_input(layer))
    return tuple(quantizers[key] for key in keys if key in quantizers)


def quantisers_hashed(
    layer: str, *, number: Format, quantizers: Mapping[str, ActivationQuantizer]
) -> tuple[object, tuple[object, ...]]:
    """Return, for a hash, the quantiser that a layer needs in a format, and what a product adds."""
    found = quantisers_of(layer, quantizers) if number.is_static else ()
    first, *others = map(asdict, found) if found else (None,)
    return first, tuple(others)


def product_override(
    node: fx.Node, *, layer: str, number: Format, quantizers: tuple[ActivationQuantizer, ...]
) -> Override:
    """Return how to compute a product with both inputs in the format.

    Raises:
        MeasurementError: The format needs two quantisers and there are fewer.
    """
    if number.is_static and len(quantizers) < _SIDES:
        raise MeasurementError(
            f"Product {layer!r} has {len(quantizers)} quantisers of its inputs, and format "
            f"{number.name!r} needs {_SIDES}. Expected them from `execution.observe_ranges`. "
            "Observe its ranges first."
        )
    target: Any = node.target
    chosen = quantizers if number.is_static else (None, None)

    def compute(*args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401 - an operator's arguments
        sides = [
            rounded_input(values, number, op=Op.PRODUCT, quantizer=quantizer, dynamic_group=None)
            for values, quantizer in zip(args[:_SIDES], chosen, strict=True)
        ]
        result = target(*sides, *args[_SIDES:], **kwargs)
        assert isinstance(result, Tensor)
        return result

    return compute
