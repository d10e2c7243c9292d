"""Attention and rotary positions, as operators of their own (operator set 23 and newer)."""

import math
from typing import Any, Final

import torch
from torch import Tensor

from mpsearch.tracing.onnx_import.call import NodeCall, Operators
from mpsearch.tracing.onnx_import.tensors import torch_type

_LOWEST: Final = float("-inf")


def _attention(call: NodeCall) -> list[Tensor | None]:
    query, key, value = (_by_heads(call, place) for place in range(3))
    past = call.optional(4)
    if past is not None:
        key, value = torch.cat([past, key], 2), torch.cat([call.tensor(5), value], 2)
    present = (key, value) if call.wants(1) or call.wants(2) else (None, None)
    groups = query.shape[1] // key.shape[1]
    if not (isinstance(groups, int) and groups == 1):
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    root = math.sqrt(call.attribute("scale", 1 / math.sqrt(int(query.shape[-1]))))
    scores = torch.matmul(query * root, (key * root).transpose(-1, -2))
    stages = {0: scores}
    cap = call.attribute("softcap", 0.0)
    if cap:
        scores = cap * torch.tanh(scores / cap)
    stages[1] = scores
    bias = _bias(call, scores, past=0 if past is None else past.shape[2])
    if bias is not None:
        scores = scores + bias
    stages[2] = scores
    precision = call.node.attributes.get("softmax_precision")
    wide = scores if precision is None else scores.to(torch_type(precision, name=call.node.title))
    weights = torch.softmax(wide, dim=-1).to(scores.dtype)
    if bias is not None:  # a row that may look at nothing gives zeros
        weights = torch.where(
            (scores == _LOWEST).all(-1, keepdim=True), torch.zeros_like(weights), weights
        )
    stages[3] = weights
    done = torch.matmul(weights, value)
    if call.tensor(0).ndim == 3:  # noqa: PLR2004 - heads lie within the last axis
        done = done.transpose(1, 2).flatten(2)
    seen = stages[call.attribute("qk_matmul_output_mode", 0)] if call.wants(3) else None
    return [done, *present, seen]


def _by_heads(call: NodeCall, place: int) -> Tensor:
    """Return (batch, heads, length, features)."""
    value = call.tensor(place)
    if value.ndim == 4:  # noqa: PLR2004 - as returned
        return value
    heads = call.needed("q_num_heads" if place == 0 else "kv_num_heads", int)
    return _split_heads(value, heads)


def _split_heads(value: Tensor, heads: int) -> Tensor:
    """Return (batch, heads, length, features) of (batch, length, heads x features)."""
    batch, length, width = value.shape
    return value.reshape([batch, length, heads, width // heads]).transpose(1, 2)


def _bias(call: NodeCall, scores: Tensor, *, past: Any) -> Tensor | None:  # noqa: ANN401 - a number or a symbol
    """Return what is added to the scores: -inf where a query may not look."""
    rows = torch.arange(scores.shape[2]).unsqueeze(1)
    columns = torch.arange(scores.shape[3])
    total: Tensor | None = None
    if call.has(3):
        total = _mask(call, scores)
    offset: Any = past
    lengths = call.optional(6)
    if lengths is not None:
        inside = columns < lengths.reshape(-1, 1, 1, 1)
        total = _allowed(inside, scores, total=total)
        offset = (lengths - scores.shape[2]).reshape(-1, 1, 1, 1)
    if call.attribute("is_causal", 0):
        total = _allowed(columns <= rows + offset, scores, total=total)
    left, right = call.attribute("left_window_size", -1), call.attribute("right_window_size", -1)
    if left >= 0:
        total = _allowed(columns >= rows + offset - left, scores, total=total)
    if right >= 0:
        total = _allowed(columns <= rows + offset + right, scores, total=total)
    return total


def _mask(call: NodeCall, scores: Tensor) -> Tensor:
    mask = call.tensor(3)
    missing = scores.shape[3] - mask.shape[-1]
    if mask.dtype is torch.bool:
        added = torch.where(mask, torch.zeros_like(mask, dtype=scores.dtype), _LOWEST)
    else:
        added = mask.to(scores.dtype)
    if isinstance(missing, int) and missing > 0:
        added = torch.nn.functional.pad(added, [0, missing], value=_LOWEST)
    return added


def _allowed(allowed: Tensor, scores: Tensor, *, total: Tensor | None) -> Tensor:
    added = torch.where(allowed, torch.zeros((), dtype=scores.dtype), _LOWEST).to(scores.dtype)
    return added if total is None else total + added


def _rotary(call: NodeCall) -> Tensor:
    value, cosine, sine = call.tensor(0), call.tensor(1), call.tensor(2)
    is_flat = value.ndim == 3  # noqa: PLR2004 - heads lie within the last axis
    if is_flat:
        value = _split_heads(value, call.needed("num_heads", int))
    places = call.optional(3)
    if places is not None:
        cosine, sine = cosine[places], sine[places]
    width = call.attribute("rotary_embedding_dim", 0) or int(value.shape[-1])
    turned, rest = value[..., :width], value[..., width:]
    cosine, sine = cosine.unsqueeze(1)[..., : width // 2], sine.unsqueeze(1)[..., : width // 2]
    if call.attribute("interleaved", 0):
        first, second = turned[..., 0::2], turned[..., 1::2]
        parts = [first * cosine - second * sine, first * sine + second * cosine]
        turned = torch.stack(parts, dim=-1).flatten(-2)
    else:
        first, second = turned.chunk(2, dim=-1)
        turned = torch.cat([first * cosine - second * sine, first * sine + second * cosine], -1)
    done = torch.cat([turned, rest], dim=-1)
    return done.transpose(1, 2).flatten(2) if is_flat else done


ATTENTION: Final[Operators] = {"Attention": _attention, "RotaryEmbedding": _rotary}
