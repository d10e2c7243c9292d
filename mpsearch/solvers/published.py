"""Forms in which published methods pose the problem: HAWQ-V3's budgets, MixDQ's groups."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from mpsearch.core.problem import Problem
from mpsearch.core.solution import Solution
from mpsearch.errors import ProblemError
from mpsearch.solvers.auto import Auto


def between(low: float, high: float, *, share: float) -> int:
    """Return HAWQ-V3's budget: `low + share x (high - low)`, rounded down.

    `low` and `high` are the costs of the uniform plans. Source: Yao et al. (2021), ICML,
    section 3.4.

    Example:
        >>> between(100.0, 200.0, share=0.75)
        175
    """
    return int(np.floor(low + share * (high - low) + 1e-9))


def hawq_loss(
    trace: Float[ndarray, " D"], perturbation: Float[ndarray, "D F"]
) -> Float[ndarray, "D F"]:
    """Return HAWQ-V3's loss: mean Hessian trace times squared norm of the weight's change."""
    return np.asarray(trace[:, None] * perturbation)


@final
@dataclass(frozen=True, kw_only=True)
class MetricGroup:
    """Layers with a metric of their own, higher is better, and a budget of their own.

    `gain` (D, F) and `bits` (F,) have formats in rising order of bits; `weights` (D,) counts
    the parameters of each layer. Metrics of different groups are never added.
    """

    name: str
    gain: Float[ndarray, "D F"]
    weights: Int[ndarray, " D"]
    bits: Int[ndarray, " F"]


def monotone(gain: Float[ndarray, "D F"], *, name: str = "metric") -> Float[ndarray, "D F"]:
    """Return the least gain above the measured one that never falls with more bits.

    Where it differs from what was measured, more bits looked worse: noise, of which a
    warning tells.
    """
    envelope = np.maximum.accumulate(gain, axis=1)
    odd = int((envelope > gain).any(axis=1).sum())
    if odd:
        warnings.warn(
            f"{odd} of {len(gain)} layers have a {name} that falls with more bits. Expected it to "
            "rise; the monotone envelope is used. Measure with more samples.",
            stacklevel=2,
        )
    return envelope


def group_problem(group: MetricGroup, mean_bits: float) -> Problem:
    """Return the problem of one group: greatest gain at a mean number of bits per weight.

    Raises:
        ProblemError: `mean_bits` is no positive number.
    """
    if not mean_bits > 0:
        raise ProblemError(
            f"Group {group.name!r} has a budget of {mean_bits} bits. Expected more than 0. "
            "Choose another split."
        )
    gain = monotone(group.gain, name=group.name)
    cost = group.weights.astype(np.int64)[:, None] * group.bits.astype(np.int64)
    # A sum of whole numbers; the small part forgives rounding of a published mean.
    limit = int(np.floor(mean_bits * int(group.weights.sum()) * (1 + 1e-12)))
    return Problem(loss=-gain, cost=cost[None], limit=np.array([limit]), names=(group.name,))


def split_bits(mean_bits: float, *, ratio: float, weights: float) -> tuple[float, float]:
    """Return mean bits of two groups that have `mean_bits` together.

    The first has `ratio` times the bits of the second and `weights` times its parameters:
    `m_2 = B (1 + r) / (k r + 1)`, `m_1 = k m_2`. Source: Zhao et al. (2024), MixDQ, ECCV.

    Example:
        >>> first, second = split_bits(4.0, ratio=0.5, weights=1.0)
        >>> round(first, 6), round(second, 6)
        (2.666667, 5.333333)
    """
    second = mean_bits * (1 + weights) / (ratio * weights + 1)
    return ratio * second, second


@final
@dataclass(frozen=True, kw_only=True)
class GroupPlan:
    """One candidate of a sweep: a solution per group, under one total and one ratio."""

    mean_bits: float
    ratio: float
    solutions: Mapping[str, Solution]


def sweep_groups(
    first: MetricGroup,
    second: MetricGroup,
    *,
    mean_bits: Sequence[float],
    ratios: Sequence[float],
) -> Iterator[GroupPlan]:
    """Yield the best plan per group for every total and ratio, the groups solved apart.

    Which candidate is best says the end metric, measured, not a sum of these.
    """
    share = float(first.weights.sum() / second.weights.sum())
    for total in mean_bits:
        for ratio in ratios:
            parts = split_bits(total, ratio=ratio, weights=share)
            solutions = {
                group.name: Auto().solve(group_problem(group, bits))
                for group, bits in zip((first, second), parts, strict=True)
            }
            yield GroupPlan(mean_bits=total, ratio=ratio, solutions=solutions)
