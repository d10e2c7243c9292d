"""The same rounding on torch tensors: what a deployed plan does to weights and activations."""

import torch
from jaxtyping import Float
from torch import Tensor

from mpsearch.core.formats import TensorFormat
from mpsearch.core.plan import ActivationQuantizer
from mpsearch.quant import QUANTIZERS
from mpsearch.quant.float8 import LARGEST_FLOAT8, float8_input_scale
from mpsearch.quant.integer import ACTIVATION_CODES


def fake_quantise_weight(
    weight: Float[Tensor, "..."], number: TensorFormat, *, axis: int = 0, name: str = "weight"
) -> Float[Tensor, "..."]:
    """Return a new tensor with the values that a stored weight has, bit for bit.

    Dtype and device stay. See `mpsearch.quant.quantizer.AbstractQuantizer` for errors.
    """
    values = weight.detach().to(device="cpu", dtype=torch.float32).numpy()
    stored = QUANTIZERS[number.kind].fake_quantise(values, number, axis=axis, name=name)
    return torch.from_numpy(stored).to(device=weight.device, dtype=weight.dtype)


def fake_quantise_activation(
    values: Float[Tensor, "..."], quantizer: ActivationQuantizer
) -> Float[Tensor, "..."]:
    """Return (saturate(round half to even(x / scale) + zero point) - zero point) x scale.

    Computed in float32, as ONNX QuantizeLinear does, then put back into the dtype of
    `values`. torch's own fake quantisation multiplies by 1 / scale, which rounds otherwise.
    """
    # A tensor on the device: a Python number would be turned into a product by its inverse.
    scale = torch.tensor(quantizer.scale, dtype=torch.float32, device=values.device)
    low = -quantizer.zero_point
    steps = (values.float() / scale).round_().clamp_(low, low + ACTIVATION_CODES)
    return (steps * scale).to(values.dtype)


def fake_float8_activation(
    values: Float[Tensor, "..."], quantizer: ActivationQuantizer
) -> Float[Tensor, "..."]:
    """Return the values as E4M3 times the scale of the range, beyond it the largest number.

    Computed in float32, as ONNX QuantizeLinear does, then put back into the dtype of `values`.
    """
    scale = torch.tensor(float8_input_scale(quantizer), dtype=torch.float32, device=values.device)
    cut = (values.float() / scale).clamp_(-LARGEST_FLOAT8, LARGEST_FLOAT8)
    return (cut.to(torch.float8_e4m3fn).float() * scale).to(values.dtype)


def round_to_bfloat16(values: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Round to bfloat16, half to even, and keep the dtype."""
    return values.to(torch.bfloat16).to(values.dtype)
