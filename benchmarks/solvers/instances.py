"""Instances of allocation as real models pose it, and two families that are hard on purpose."""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from numpy.random import Generator, default_rng

from mpsearch.core.problem import Problem

Family: TypeAlias = Callable[
    ...,
    tuple[Float[ndarray, "D F"], Int[ndarray, "K D F"]],
]

# (outputs, inputs) of the seven linear layers of a Llama 3 8B block.
SHAPES = (
    (4096, 4096),
    (1024, 4096),
    (1024, 4096),
    (4096, 4096),
    (14336, 4096),
    (14336, 4096),
    (4096, 14336),
)
BITS = (2, 3, 4, 5, 6, 8, 12, 16)
GROUP = 128
BUDGET_SHARES = (0.15, 0.35, 0.60)
# A server GPU: bytes and operations at 16 bit per nanosecond; a launch takes two microseconds.
_BYTES_PER_NS, _OPERATIONS_PER_NS, _LAUNCH_NS = 2000.0, 400_000.0, 2000.0
_PREFILL_TOKENS, _DECODE_TOKENS = 2048, 16
_NON_MONOTONE = 0.05


def problem_of(
    family: str, *, blocks: int, formats: int, budgets: int, share: float, seed: int
) -> Problem:
    """Return an instance with every budget at `share` of the span it can be spent in."""
    loss, cost = FAMILIES[family](
        default_rng(seed), blocks=blocks, formats=formats, budgets=budgets
    )
    low, high = cost.min(axis=2).sum(axis=1), cost.max(axis=2).sum(axis=1)
    limit = low + ((high - low) * share).astype(np.int64)
    return Problem(loss=loss, cost=cost, limit=limit)


def transformer(
    generator: Generator, *, blocks: int, formats: int, budgets: int
) -> tuple[Float[ndarray, "D F"], Int[ndarray, "K D F"]]:
    """Return layers cycling seven shapes; bytes, decode and prefill latency; rough losses."""
    shapes = np.array(SHAPES)[np.arange(blocks) % len(SHAPES)]
    bits, grouped = _formats(formats)
    cost = _costs(shapes, bits=bits, grouped=grouped)
    noise = generator.lognormal(0.0, 0.05, cost[1:].shape)
    cost = np.concatenate([cost[:1], np.round(cost[1:] * noise)]).astype(np.int64)
    loss = _losses(generator, shapes=shapes, bits=bits, grouped=grouped)
    return loss, cost[:budgets]


def lattice(
    generator: Generator, *, blocks: int, formats: int, budgets: int
) -> tuple[Float[ndarray, "D F"], Int[ndarray, "K D F"]]:
    """Return layers of one shape and equal costs: sums lie on a coarse lattice."""
    shapes = np.tile(np.array(SHAPES[:1]), (blocks, 1))
    bits, grouped = _formats(formats)
    cost = np.round(_costs(shapes, bits=bits, grouped=grouped)).astype(np.int64)
    return _losses(generator, shapes=shapes, bits=bits, grouped=grouped), cost[:budgets]


def strongly_correlated(
    generator: Generator, *, blocks: int, formats: int, budgets: int
) -> tuple[Float[ndarray, "D F"], Int[ndarray, "K D F"]]:
    """Return steps whose gain is their mean cost plus ten, sorted and summed up in each class.

    Source: Pisinger (1995), European J. Operational Research 83(2), 394-410; the second and
    further budgets are drawn alike.
    """
    step = generator.integers(1, 1001, (budgets, blocks, formats))
    step = np.sort(step, axis=2)
    gain = np.cumsum(step.mean(axis=0) + 10.0, axis=1)
    return gain[:, -1:] - gain, np.cumsum(step, axis=2)


FAMILIES: dict[str, Family] = {
    "transformer": transformer,
    "lattice": lattice,
    "strongly_correlated": strongly_correlated,
}


def _formats(count: int) -> tuple[Int[ndarray, " F"], Int[ndarray, " F"]]:
    """Return bits per weight, and whether scales are per group of 128 inputs."""
    bits = np.array(BITS * -(-count // len(BITS)))[:count]
    return bits, (np.arange(count) >= len(BITS)).astype(np.int64)


def _costs(
    shapes: Int[ndarray, "D 2"], *, bits: Int[ndarray, " F"], grouped: Int[ndarray, " F"]
) -> Float[ndarray, "3 D F"]:
    outputs, inputs = shapes[:, :1].astype(float), shapes[:, 1:].astype(float)
    scales = outputs * np.where(grouped, inputs / GROUP, 1.0)
    stored = np.ceil(outputs * inputs * bits / 8) + 2 * scales
    latencies = []
    for tokens in (_DECODE_TOKENS, _PREFILL_TOKENS):
        # Arithmetic runs in 4, 8 or 16 bit, whichever holds the weight.
        width = np.select([bits <= 4, bits <= 8], [4, 8], 16)  # noqa: PLR2004 - widths of kernels
        operations = 2 * outputs * inputs * tokens * width / 16
        roofline = np.maximum(stored / _BYTES_PER_NS, operations / _OPERATIONS_PER_NS)
        latencies.append(_LAUNCH_NS + roofline)
    return np.stack([stored, *latencies])


def _losses(
    generator: Generator,
    *,
    shapes: Int[ndarray, "D 2"],
    bits: Int[ndarray, " F"],
    grouped: Int[ndarray, " F"],
) -> Float[ndarray, "D F"]:
    parameters = shapes.prod(axis=1, keepdims=True).astype(float)
    rough = generator.lognormal(0.0, 1.5, (len(shapes), 1))
    # Finer scales keep about a third of the error away.
    loss = parameters * rough * 4.0**-bits * np.where(grouped, 0.65, 1.0)
    odd = generator.random(loss.shape) < _NON_MONOTONE
    return np.asarray(np.where(odd, loss * generator.uniform(1.0, 8.0, loss.shape), loss))
