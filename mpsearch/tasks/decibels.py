"""Ratios of powers in decibels, with an end to them."""

from typing import Final

from jaxtyping import Float64
from torch import Tensor

MOST_DECIBELS: Final = 100.0


def decibels(signal: Float64[Tensor, " S"], noise: Float64[Tensor, " S"]) -> Float64[Tensor, " S"]:
    """Return 10 log10(signal / noise), 100 where there is hardly any noise, or no signal.

    Example:
        >>> import torch
        >>> powers = torch.tensor([100.0, 1.0], dtype=torch.float64)
        >>> decibels(powers, torch.tensor([1.0, 0.0], dtype=torch.float64)).tolist()
        [20.0, 100.0]
    """
    least = signal * 10 ** (-MOST_DECIBELS / 10)
    ratio = signal / noise.clamp(min=least)
    return 10 * ratio.where(noise > least, ratio.new_tensor(10 ** (MOST_DECIBELS / 10))).log10()
