"""Once the time is up no further chunk of a search is begun, whenever that happens."""

import time
from collections.abc import Callable

import numpy as np
import pytest
from numpy.random import default_rng

from mpsearch.core.problem import Problem
from mpsearch.solvers import Termination, chain_paths, halves, solve, states
from mpsearch.solvers.clock import TimeUpError, check
from mpsearch.solvers.compiled import compiled


class Clock:
    """Stand still for some chunks of work, then be past every deadline."""

    def __init__(self, chunks: int) -> None:
        self.chunks = chunks
        self.late = 0

    def __call__(self) -> float:
        return 0.0 if self.chunks > 0 else 1e9

    def counting(self, loop: Callable[..., object]) -> Callable[..., object]:
        """Return the loop as machine code that counts calls begun after the time was up."""

        def counted(*arrays: object) -> object:
            self.late += self.chunks <= 0
            self.chunks -= 1
            return compiled(loop)(*arrays)

        return counted


def rough(*, edges: bool, most: int) -> Problem:
    generator = default_rng(3)
    blocks = 40
    cost = generator.integers(0, most, (2, blocks, 4))
    low, high = cost.min(axis=2).sum(axis=1), cost.max(axis=2).sum(axis=1)
    ends = np.stack([np.arange(blocks - 1), np.arange(1, blocks)], axis=1)
    return Problem(
        loss=generator.lognormal(0, 1.5, (blocks, 4)),
        cost=cost,
        limit=(low + 0.4 * (high - low)).astype(np.int64),
        edges=ends if edges else None,
        edge_cost=generator.integers(0, 50, (2, blocks - 1, 4, 4)) if edges else None,
    )


@pytest.mark.parametrize(("edges", "most"), [(False, 1000), (False, 8), (True, 1000)])
@pytest.mark.parametrize("chunks", range(1, 40))
def test_no_chunk_is_begun_after_the_time_is_up(
    monkeypatch: pytest.MonkeyPatch, chunks: int, most: int, *, edges: bool
) -> None:
    problem = rough(edges=edges, most=most)
    solver = "chain_core" if edges else "lagrangian_core"
    optimum = solve(problem, solver, gap=0.0)
    assert optimum.termination is not Termination.INFEASIBLE
    clock = Clock(chunks)
    for module in (chain_paths, halves, states):
        monkeypatch.setattr(module, "CHUNK", 32)
        monkeypatch.setattr(module, "compiled", clock.counting)
    monkeypatch.setattr(time, "monotonic", clock)
    found = solve(problem, solver, gap=0.0, time_limit_seconds=5.0)
    monkeypatch.undo()
    # Shortest paths ahead and behind may still be begun; they are no search.
    assert clock.late <= (2 if edges else 0)
    assert found.bound <= optimum.loss * (1 + 1e-9)
    assert found.termination is not Termination.INFEASIBLE
    if found.choice is not None:
        assert problem.fits(found.choice)


def test_a_step_that_would_end_too_late_is_not_begun() -> None:
    now = time.monotonic()
    check(now + 60.0)
    with pytest.raises(TimeUpError):
        check(now - 1.0)
    with pytest.raises(TimeUpError):
        check(now + 60.0, ahead=120.0)
