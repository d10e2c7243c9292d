"""Random numbers of one sample: the same whatever batch the sample stands in."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


def generator_of(*, seed: int, draw: int, place: int) -> np.random.Generator:
    """Return the generator of one draw for the sample at a place in the source."""
    return np.random.default_rng([seed, draw, place])


def random_signs(
    like: Float[Tensor, "S ..."], *, seed: int, draw: int, places: Sequence[int]
) -> Float[Tensor, "S ..."]:
    """Return independent +1 and -1; a longer sample begins with those of a shorter one."""
    count = like[0].numel()
    rows = []
    for place in places:
        generator = generator_of(seed=seed, draw=draw, place=place)
        bits = np.unpackbits(np.frombuffer(generator.bytes((count + 7) // 8), dtype=np.uint8))
        rows.append(torch.from_numpy(bits[:count].astype(np.float32)))
    return (2 * torch.stack(rows) - 1).reshape(like.shape).to(like.device)


def random_normals(
    like: Float[Tensor, "S ..."], *, seed: int, draw: int, places: Sequence[int]
) -> Float[Tensor, "S ..."]:
    """Return independent standard normal numbers."""
    rows = [
        generator_of(seed=seed, draw=draw, place=place).standard_normal(
            like[0].numel(), dtype=np.float32
        )
        for place in places
    ]
    return torch.from_numpy(np.stack(rows)).reshape(like.shape).to(like.device)


def random_classes(
    logits: Float[Tensor, "S ... C"], *, seed: int, draw: int, places: Sequence[int]
) -> Float[Tensor, "S ... C"]:
    """Return one class of each distribution, drawn by its probability, as ones and zeros."""
    probability = logits.double().softmax(dim=-1).reshape(len(logits), -1, logits.shape[-1])
    uniform = np.stack(
        [
            generator_of(seed=seed, draw=draw, place=place).random(probability.shape[1])
            for place in places
        ]
    )
    level = torch.from_numpy(uniform).to(logits.device)[:, :, None]
    below = (probability.cumsum(dim=-1) <= level).sum(dim=-1)
    # Rounding can leave the sum a little below one.
    drawn = below.clamp(max=logits.shape[-1] - 1)
    ones = torch.nn.functional.one_hot(drawn, logits.shape[-1]).to(logits.dtype)
    return ones.reshape(logits.shape)
