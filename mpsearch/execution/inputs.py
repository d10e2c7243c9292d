"""What a format, or a runtime behind its back, does to the input of a layer."""

from jaxtyping import Float
from torch import Tensor

from mpsearch.core.formats import Format, Granularity
from mpsearch.core.graph import Op
from mpsearch.core.plan import ActivationQuantizer
from mpsearch.execution.dynamic import quantise_dynamically, quantise_whole
from mpsearch.execution.smoothed import evened_out
from mpsearch.quant.fake_torch import (
    fake_float8_activation,
    fake_quantise_activation,
    round_to_bfloat16,
)


def rounded_input(
    values: Float[Tensor, "..."],
    number: Format,
    *,
    op: Op,
    quantizer: ActivationQuantizer | None,
    dynamic_group: int | None,
) -> Float[Tensor, "..."]:
    """Return the input of a layer as the format computes with it.

    Args:
        values: The input; features of a linear layer come last.
        number: The layer's format.
        op: The layer's kind.
        quantizer: Found during calibration, where the format is static.
        dynamic_group: Inputs per scale where the runtime quantises those of weight-only
            linear layers on the fly (`dynamic_group_of`); None where it does not.
    """
    activation = number.activation
    if activation is None:
        is_dynamic = op is Op.LINEAR and dynamic_group is not None and not number.is_floating
        return quantise_dynamically(values, dynamic_group or 0) if is_dynamic else values
    if activation.is_plain:
        return round_to_bfloat16(values)
    if activation.dynamic and activation.granularity is Granularity.TENSOR:
        return quantise_whole(values)
    if activation.dynamic:
        return quantise_dynamically(values, values.shape[-1], bits=activation.bits)
    assert quantizer is not None
    even, factors = evened_out(values, quantizer)
    round_to_codes = (
        fake_float8_activation if activation.kind == "floating" else fake_quantise_activation
    )
    rounded = round_to_codes(even, quantizer)
    return rounded if factors is None else rounded * factors
