"""Fourier transforms and window functions."""

import math
from typing import Any, Final

import torch
from torch import Tensor

from mpsearch.tracing.onnx_import.call import NodeCall, Operators
from mpsearch.tracing.onnx_import.tensors import torch_type


def _dft(call: NodeCall) -> Tensor:
    value = call.tensor(0)
    axis = call.integers(2)[0] if call.has(2) else call.attribute("axis", -2)
    axis = axis if axis >= 0 else axis + value.ndim
    length = call.integers(1)[0] if call.has(1) else None
    is_complex = value.shape[-1] == 2  # noqa: PLR2004 - real and imaginary part
    numbers: Any = torch.view_as_complex(value.contiguous()) if is_complex else value.squeeze(-1)
    one_sided, inverse = bool(call.attribute("onesided", 0)), bool(call.attribute("inverse", 0))
    if one_sided and inverse:
        real: Tensor = torch.fft.irfft(numbers, n=length, dim=axis)
        return real.unsqueeze(-1)
    if one_sided:
        return torch.view_as_real(torch.fft.rfft(numbers, n=length, dim=axis))
    function = torch.fft.ifft if inverse else torch.fft.fft
    return torch.view_as_real(function(numbers, n=length, dim=axis))


def _stft(call: NodeCall) -> Tensor:
    value, step = call.tensor(0), call.integers(1)[0]
    window = call.optional(2)
    length = call.integers(3)[0] if call.has(3) else int(call.tensor(2).shape[0])
    signal = value.squeeze(-1) if value.ndim > 2 else value  # noqa: PLR2004 - (batch, samples, 1)
    frames = signal.unfold(-1, length, step)
    if window is not None:
        frames = frames * window
    function = torch.fft.rfft if call.attribute("onesided", 1) else torch.fft.fft
    return torch.view_as_real(function(frames))


def _window(first: float, *rest: float) -> Any:  # noqa: ANN401 - an operator
    """Return the sum of cosines with these weights, alternating in sign."""

    def run(call: NodeCall) -> Tensor:
        size = call.integers(0)[0]
        call.checked([size])
        divisor = size if call.attribute("periodic", 1) else size - 1
        angle = torch.arange(size, dtype=torch.float64) * (2 * math.pi / divisor)
        total = torch.full_like(angle, first)
        for place, weight in enumerate(rest, start=1):
            total = total + (-1) ** place * weight * torch.cos(place * angle)
        return total.to(torch_type(call.attribute("output_datatype", 1), name=call.node.title))

    return run


SIGNALS: Final[Operators] = {
    "BlackmanWindow": _window(0.42, 0.5, 0.08),
    "DFT": _dft,
    "HammingWindow": _window(25 / 46, 21 / 46),
    "HannWindow": _window(0.5, 0.5),
    "STFT": _stft,
}
