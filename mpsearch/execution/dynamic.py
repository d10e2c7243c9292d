"""Inputs quantised on the fly: by formats that say so, by runtimes in weight-only layers."""

from collections.abc import Mapping
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

DYNAMIC_GROUP_SETTING: Final = "DYNAMIC_QUANTIZATION_GROUP_SIZE"
# OpenVINO 2026.4 on CPU where the setting is absent, found by comparing one-layer files.
_DEFAULT_GROUP: Final = 32
# MatMulNBits of ONNX Runtime at this level quantises its input in blocks as long as the weight's.
_ACCURACY_SETTING: Final = "accuracy_level"
_LEVEL_WITH_CODES: Final = "4"
_BLOCK: Final = 128
_CODES: Final = 255  # the largest code of 8 bits without sign


def dynamic_group_of(runtime: str, settings: Mapping[str, str]) -> int | None:
    """Return how many inputs of a weight-only linear layer get one scale on the fly.

    None where the runtime leaves them as they are.

    Example:
        >>> dynamic_group_of("openvino", {"DYNAMIC_QUANTIZATION_GROUP_SIZE": "128"})
        128
        >>> dynamic_group_of("onnxruntime", {"accuracy_level": "4"})
        128
        >>> dynamic_group_of("simulation", {}) is None
        True
    """
    if runtime == "onnxruntime":
        return _BLOCK if settings.get(_ACCURACY_SETTING) == _LEVEL_WITH_CODES else None
    if runtime != "openvino":
        return None
    return int(settings.get(DYNAMIC_GROUP_SETTING, _DEFAULT_GROUP)) or None


def quantise_whole(values: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Return the values in codes of 8 bits, whose range is that of all of them, zero included.

    As DynamicQuantizeLinear of ONNX says: scale = (max - min) / 255, a zero point of whole
    codes, half to even. What one call holds shares the range, so batches should be those of
    deployment.
    """
    low, high = values.amin().clamp(max=0), values.amax().clamp(min=0)
    scale = (high - low) / _CODES
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    zero = (-low / scale).round().clamp(0, _CODES)
    codes = ((values / scale).round() + zero).clamp(0, _CODES)
    stored: Tensor = (codes - zero) * scale
    return stored


def quantise_dynamically(
    values: Float[Tensor, "... K"], group: int, *, bits: int = 8
) -> Float[Tensor, "... K"]:
    """Return the values in symmetric codes, one scale = max|x| / (2**(bits - 1) - 1) per group.

    As OpenVINO's kernels do with 8 bits, bit for bit: the last group of a row may be shorter,
    and rows shorter than one group stay as they are. A group of K is a scale per token.
    """
    length = values.shape[-1]
    if length < group:
        return values
    padded = torch.nn.functional.pad(values, (0, -length % group))
    blocks = padded.reshape(*values.shape[:-1], -1, group)
    scale = blocks.abs().amax(dim=-1, keepdim=True) / (2 ** (bits - 1) - 1)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    stored: Tensor = (blocks / scale).round() * scale
    return stored.reshape(padded.shape)[..., :length]
