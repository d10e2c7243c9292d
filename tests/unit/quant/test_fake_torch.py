"""The torch side equals the NumPy side bit for bit."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from mpsearch.core.formats import FORMATS, format_named
from mpsearch.quant.fake_torch import (
    fake_quantise_activation,
    fake_quantise_weight,
    round_to_bfloat16,
)
from mpsearch.quant.float8 import quantise_to_float8
from mpsearch.quant.integer import dequantise_activation, quantise_activation, quantise_weight
from mpsearch.quant.ranges import quantizer_of_range


@pytest.mark.parametrize(("low", "high"), [(-0.7, 2.9), (0.0, 6.0), (-3.0, 0.0), (-1e-3, 1e3)])
def test_activations_equal_numpy_bit_for_bit(low: float, high: float) -> None:
    quantizer = quantizer_of_range(low, high)
    values = torch.randn(2000, generator=torch.Generator().manual_seed(0)) * high
    # Ties, where a product by 1 / scale rounds to the other side.
    values = torch.cat([values, (torch.arange(-300, 300) + 0.5) * quantizer.scale])
    expected = dequantise_activation(quantise_activation(values.numpy(), quantizer), quantizer)
    np.testing.assert_array_equal(fake_quantise_activation(values, quantizer).numpy(), expected)


def test_activations_leave_their_argument_and_dtype_alone() -> None:
    values = torch.randn(10, dtype=torch.bfloat16, generator=torch.Generator().manual_seed(1))
    before = values.clone()
    quantised = fake_quantise_activation(values, quantizer_of_range(-2.0, 2.0))
    assert quantised.dtype is torch.bfloat16
    assert torch.equal(values, before)


@pytest.mark.parametrize("name", FORMATS)
def test_weights_equal_numpy_bit_for_bit(name: str) -> None:
    weight = torch.randn(6, 256, generator=torch.Generator().manual_seed(2))
    number = format_named(name).weight
    stored = fake_quantise_weight(weight, number)
    if number.kind == "integer":
        expected = quantise_weight(weight.numpy(), number).dequantise()
    elif number.bits == 8:
        expected = quantise_to_float8(weight.numpy()).dequantise()
    else:
        expected = weight.to({32: torch.float32, 16: torch.bfloat16}[number.bits]).float().numpy()
    np.testing.assert_array_equal(stored.numpy(), expected)
    assert stored.data_ptr() != weight.data_ptr()


def test_a_parameter_keeps_dtype_and_needs_no_gradient() -> None:
    weight = torch.nn.Parameter(torch.randn(4, 8, dtype=torch.float64))
    stored = fake_quantise_weight(weight, format_named("w4").weight, axis=1)
    assert stored.dtype is torch.float64
    assert not stored.requires_grad


def test_rounding_to_bfloat16_keeps_the_dtype() -> None:
    assert round_to_bfloat16(torch.tensor(3.1415927)).item() == 3.140625


def test_the_numpy_side_loads_no_torch() -> None:
    code = (
        "import sys, mpsearch.quant, mpsearch.quant.ranges, mpsearch.quant.integer; "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
