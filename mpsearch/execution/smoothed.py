"""A layer whose input channels were evened out: what its weight and its input then become.

Both are told as the layer sees them without the exponents, so that whoever compares them with
full precision, or feeds the one to the other, need not know of any.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from mpsearch.core.formats import Format
from mpsearch.core.plan import ActivationQuantizer
from mpsearch.quant.fake_torch import fake_quantise_weight
from mpsearch.quant.smoothing import smoothing_factors


def stored_weight(
    weight: Float[Tensor, "O ..."],
    number: Format,
    *,
    quantizer: ActivationQuantizer | None,
    name: str,
) -> Float[Tensor, "O ..."]:
    """Return a weight, outputs first, as the format stores it beside its input's quantiser.

    Columns are multiplied by the factors of their channels before they are rounded, and
    divided by them afterwards.
    """
    factors = _factors(quantizer, weight) if number.is_static else None
    if factors is None:
        return fake_quantise_weight(weight, number.weight, name=name)
    return fake_quantise_weight(weight * factors, number.weight, name=name) / factors


def evened_out(
    values: Float[Tensor, "..."], quantizer: ActivationQuantizer
) -> tuple[Float[Tensor, "..."], Tensor | None]:
    """Return the input divided by the factors of its channels, and the factors, if any."""
    factors = _factors(quantizer, values)
    return (values, None) if factors is None else (values / factors, factors)


def _factors(quantizer: ActivationQuantizer | None, like: Tensor) -> Float[Tensor, " I"] | None:
    if quantizer is None or not quantizer.exponents:
        return None
    return torch.from_numpy(smoothing_factors(quantizer.exponents)).to(like)
