"""How much of an answer is noise of the measured losses."""

import time
from dataclasses import dataclass, replace
from typing import final

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from numpy.random import Generator

from mpsearch.core.problem import Problem
from mpsearch.errors import ProblemError
from mpsearch.solvers.auto import Auto

# What remains for all draws when the time is up: each then ends with its first answer.
_LEAST_SECONDS = 0.02


@final
@dataclass(frozen=True, kw_only=True)
class Stability:
    """How the best choice changes when losses are drawn anew within their standard errors.

    `changed[n]` blocks differ in draw n; block d differs in a share `share[d]` of the draws.
    `regret[n]` is the loss, by the numbers given, of taking draw n's choice instead.
    """

    changed: Int[ndarray, " N"]
    share: Float[ndarray, " D"]
    regret: Float[ndarray, " N"]


def stability(
    problem: Problem,
    stderr: Float[ndarray, "D F"],
    *,
    draws: int,
    generator: Generator,
    time_limit_seconds: float = 10.0,
) -> Stability | None:
    """Return how the answer holds under normal noise; None where nothing fits.

    All solves share the time.

    Raises:
        ProblemError: A standard error is negative or not finite where a choice is allowed.
    """
    size = np.where(problem.mask, stderr, 0.0)
    if not (np.isfinite(size).all() and (size >= 0).all()):
        raise ProblemError(
            "Standard errors hold a negative number or none at an allowed choice. Expected "
            "finite numbers >= 0. Measure with more samples, or forbid the choice."
        )
    end = time.monotonic() + time_limit_seconds
    best = Auto(time_limit_seconds=time_limit_seconds / 2).solve(problem).choice
    if best is None:
        return None
    choices = []
    for draw in range(draws):
        left = max(end - time.monotonic(), _LEAST_SECONDS) / (draws - draw)
        noisy = problem.loss + size * generator.standard_normal(size.shape)
        choice = Auto(time_limit_seconds=left).solve(replace(problem, loss=noisy)).choice
        choices.append(best if choice is None else choice)
    differ = np.array(choices).reshape(draws, len(best)) != best
    least = problem.value(best)
    return Stability(
        changed=differ.sum(axis=1),
        share=differ.mean(axis=0) if draws else np.zeros(len(best)),
        regret=np.array([problem.value(choice) - least for choice in choices]),
    )
