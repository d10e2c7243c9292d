"""The arithmetic of kernels for GPUs against closed forms, on operators of the processor."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from jaxtyping import Float32, Int8
from numpy import ndarray
from torch import Tensor

from mpsearch.core.formats import format_named
from mpsearch.quant.float8 import quantise_to_float8, round_to_float8
from mpsearch.quant.integer import quantise_weight
from mpsearch.runtimes import torch_cuda_kernels
from mpsearch.runtimes.lowering_graph import QuantisedWeight
from mpsearch.runtimes.torch_cuda_kernels import (
    group_of,
    int4_numbers,
    int4_of,
    pairs,
    product_of_codes,
    product_of_float8,
    shift_of,
    to_codes,
    to_float8,
    whole_lines,
)
from mpsearch.runtimes.torch_lowering import LayerWork


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _codes(rows: int, inputs: int) -> Tensor:
    return torch.randint(0, 256, (rows, inputs), generator=_generator(), dtype=torch.uint8)


def _weight(outputs: int, inputs: int) -> Tensor:
    return torch.randint(-127, 128, (outputs, inputs), generator=_generator(), dtype=torch.int8)


@pytest.mark.parametrize("rows", [1, 16, 17, 33])
@pytest.mark.parametrize("zero_point", [0, 77, 128, 255])
@pytest.mark.parametrize("biased", [True, False])
def test_products_of_codes_are_those_of_the_real_numbers(
    rows: int, zero_point: int, *, biased: bool
) -> None:
    codes, weight = _codes(rows, 64), _weight(24, 64)
    scale = torch.rand(24, generator=_generator()) + 0.5
    bias = torch.randn(24, generator=_generator()) * 1000 if biased else None
    shift = shift_of(weight, scale=scale, zero_point=zero_point, bias=bias)
    found = product_of_codes(codes, weight, scale=scale, shift=shift)
    exact = (codes.double() - zero_point) @ weight.double().t() * scale.double()
    expected = exact if bias is None else exact + bias.double()
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=0.5)
    assert found.shape == (rows, 24)


def test_the_largest_sums_are_exact() -> None:
    codes = torch.full((17, 1024), 255, dtype=torch.uint8)
    weight = torch.full((8, 1024), 127, dtype=torch.int8)
    ones = torch.ones(8)
    shift = shift_of(weight, scale=ones, zero_point=0, bias=None)
    found = product_of_codes(codes, weight, scale=ones, shift=shift)
    assert (found == 255 * 127 * 1024).all()


@pytest.mark.parametrize("rows", [1, 16, 17, 40])
def test_the_kernel_of_int8_never_gets_fewer_than_17_rows(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Size] = []
    kernel: Callable[[Tensor, Tensor], Tensor] = torch_cuda_kernels._INT8

    def as_on_a_gpu(first: Tensor, second: Tensor) -> Tensor:
        seen.append(first.shape)
        assert first.shape[0] > 16
        assert first.shape[1] % 8 == 0
        assert second.shape[1] % 8 == 0
        assert first.dtype == second.dtype == torch.int8
        return kernel(first, second)

    monkeypatch.setattr(torch_cuda_kernels, "_INT8", as_on_a_gpu)
    product_of_codes(_codes(rows, 16), _weight(8, 16), scale=torch.ones(8), shift=torch.zeros(8))
    assert seen == [torch.Size((max(rows, 32) if rows < 17 else rows, 16))]


@pytest.mark.parametrize("base", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("biased", [True, False])
def test_products_of_float8_are_those_of_the_real_numbers(
    base: torch.dtype, *, biased: bool
) -> None:
    values = torch.randn(5, 32, generator=_generator()) * 3
    weight = quantise_to_float8(torch.randn(16, 32, generator=_generator()).numpy())
    step = torch.tensor(0.03125)
    numbers = to_float8(values, step)
    bias = torch.randn(16, generator=_generator()).to(base) if biased else None
    found = product_of_float8(
        numbers,
        torch.from_numpy(weight.numbers).to(torch.float8_e4m3fn),
        scales=(step, torch.from_numpy(weight.scale)),
        bias=bias,
        base=base,
    )
    inputs = round_to_float8(values.numpy() / np.float32(0.03125)) * np.float32(0.03125)
    expected = torch.from_numpy(inputs @ weight.dequantise().T)
    expected = expected if bias is None else expected + bias.float()
    assert found.dtype == base
    close = 1e-5 if base == torch.float32 else 2.0**-7
    torch.testing.assert_close(found.float(), expected, rtol=close, atol=close)


def test_a_bias_goes_into_the_kernel_in_bfloat16_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel: Callable[..., Tensor] = torch_cuda_kernels._FLOAT8

    def as_on_a_gpu(first: Tensor, second: Tensor, **more: Any) -> Tensor:  # noqa: ANN401 - as torch's
        assert second.t().is_contiguous()  # column by column
        assert all(size % 16 == 0 for size in second.shape)
        assert more["bias"] is None or more["out_dtype"] == torch.bfloat16
        return kernel(first, second, **more)

    monkeypatch.setattr(torch_cuda_kernels, "_FLOAT8", as_on_a_gpu)
    one = torch.tensor(1.0)
    numbers, weight = (torch.ones(size, 16).to(torch.float8_e4m3fn) for size in (3, 32))
    for base in (torch.float32, torch.bfloat16):
        found = product_of_float8(
            numbers, weight, scales=(one, one), bias=torch.ones(32, dtype=base), base=base
        )
        assert (found == 17).all()


def test_numbers_beyond_the_range_are_cut_as_the_standard_says() -> None:
    values = torch.tensor([1e6, -1e6, 3.5])
    assert to_float8(values, torch.tensor(0.5)).float().tolist() == [448.0, -448.0, 7.0]
    codes = to_codes(values, torch.tensor(1.0), zero_point=10)
    assert codes.tolist() == [255, 0, 14]  # 3.5 goes to the even 4


def _stored(weight: Float32[ndarray, "N K"], name: str) -> QuantisedWeight:
    number = format_named(name).weight
    found = quantise_weight(weight, number)
    return QuantisedWeight(
        name="w", codes=found.codes, scale=found.scale, bits=4, group_size=number.group_size
    )


def _int4_work(name: str, *, outputs: int, inputs: int) -> LayerWork:
    weight = np.random.default_rng(0).standard_normal((outputs, inputs)).astype(np.float32)
    return LayerWork(
        layer="a", is_convolution=False, weight=weight, bias=None, stored=_stored(weight, name)
    )


@pytest.mark.parametrize(
    ("name", "outputs", "inputs"), [("w4g128", 32, 256), ("w4", 24, 96), ("w4", 5, 256)]
)
def test_weights_of_4_bits_are_the_stored_ones(name: str, outputs: int, inputs: int) -> None:
    work = _int4_work(name, outputs=outputs, inputs=inputs)
    assert work.stored is not None
    codes, scales = int4_of(work)
    assert codes.shape[0] % 16 == 0
    assert int(codes.min()) >= 0
    assert int(codes.max()) <= 15
    group = inputs // len(scales)
    spread = scales[:, :, 0].float().t().repeat_interleave(group, dim=1)
    wide = (codes.float() - 8) * spread + scales[:, :, 1].float().t().repeat_interleave(group, 1)
    own = work.stored.scale.reshape(outputs, -1)
    expected = work.stored.codes * np.repeat(own, inputs // own.shape[1], axis=1)
    np.testing.assert_allclose(wide[:outputs].numpy(), expected, rtol=2.0**-8)
    assert not wide[outputs:].any()


def test_the_kernel_of_4_bits_multiplies_by_these_weights() -> None:
    work = _int4_work("w4g128", outputs=32, inputs=256)
    codes, scales = int4_of(work)
    values = torch.randn(3, 256, generator=_generator()).bfloat16()
    packed = torch_cuda_kernels._PACK_HERE(codes, 2)
    found = torch_cuda_kernels._INT4_HERE(values, packed, 128, scales)
    wide = (codes.float() - 8) * scales[:, :, 0].float().t().repeat_interleave(128, dim=1)
    expected = values.float() @ wide.t()
    assert float((found.float() - expected).norm() / expected.norm()) < 0.005


def test_two_codes_share_a_byte_with_the_first_in_its_upper_half() -> None:
    codes = torch.arange(16, dtype=torch.int32).reshape(2, 8)
    found = pairs(codes)
    back = torch.stack([found >> 4, found & 15], dim=-1).reshape(2, 8)
    assert torch.equal(back.to(torch.int32), codes)


@pytest.mark.parametrize(("inputs", "group"), [(1024, 128), (192, 64), (96, 32), (48, 0)])
def test_groups_are_the_largest_that_divide(inputs: int, group: int) -> None:
    assert group_of(inputs) == group


def test_groups_that_no_kernel_takes_have_no_scales() -> None:
    codes: Int8[ndarray, "N K"] = np.zeros((16, 48), dtype=np.int8)
    for scale, size in ((np.ones(16), None), (np.ones((16, 3)), 16)):
        stored = QuantisedWeight(
            name="w", codes=codes, scale=scale.astype(np.float32), bits=4, group_size=size
        )
        weight = np.zeros((16, 48), dtype=np.float32)
        work = LayerWork(layer="a", is_convolution=False, weight=weight, bias=None, stored=stored)
        assert len(int4_of(work)[1]) == 0


def test_one_scale_per_row_is_repeated() -> None:
    codes = torch.zeros(16, 256, dtype=torch.int8)
    _, scales = int4_numbers(codes, torch.arange(16.0).reshape(16, 1))
    assert scales.shape == (2, 16, 2)
    assert torch.equal(scales[0], scales[1])


@pytest.mark.parametrize("size", [1, 15, 16, 17])
def test_outputs_are_filled_up_with_zeros(size: int) -> None:
    filled = whole_lines(torch.ones(size, 3), line=16)
    assert filled.shape == (16 if size <= 16 else 32, 3)
    assert float(filled.sum()) == 3 * size
    assert whole_lines(None, line=16) is None
