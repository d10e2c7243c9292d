"""Fronts, chains and interactions."""

import statistics
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.random import default_rng

from benchmarks.bar import Bar, judged
from benchmarks.solvers.instances import BUDGET_SHARES, FAMILIES, problem_of
from benchmarks.solvers.proofs import FIRST_SEED
from benchmarks.solvers.targets import GAP, TARGETS
from mpsearch.core.problem import Problem
from mpsearch.core.solution import Solution, Termination
from mpsearch.solvers import exact_front, solve, solve_interactions

_CHAIN_GAP = 1e-4
# A conversion costs about this share of a layer's mean latency.
_CONVERSION = 0.05
_SAMPLES, _COMMON = 2048, 16


# HiGHS gets this many times our own time on each instance, and two seconds at least.
_PATIENCE = 15.0


def run(*, small: bool) -> Iterator[Bar]:
    """Yield the bars of structured problems."""
    yield _front(seeds=1 if small else 10)
    yield _chain(seeds=1 if small else 10, shares=BUDGET_SHARES[1:2] if small else BUDGET_SHARES)
    if small:
        yield from _interactions(runs=1, seconds=5.0, answers=1)
    else:
        yield from _interactions(runs=10, seconds=20.0, answers=10)
    yield _small_interactions(count=50 if small else 500)


def _front(*, seeds: int) -> Bar:
    """Solve at 100 budgets; a point without a proof makes the front infinite."""
    medians = {}
    for family in FAMILIES:
        seconds = []
        for seed in range(FIRST_SEED, FIRST_SEED + seeds):
            problem = problem_of(family, blocks=560, formats=8, budgets=1, share=0.5, seed=seed)
            low, high = (edge(problem.cost[0], axis=1).sum() for edge in (np.min, np.max))
            limits = [np.array([int(value)]) for value in np.linspace(low, high, 102)[1:-1]]
            start = time.perf_counter()
            points = exact_front(problem, limits, gap=GAP, time_limit_seconds=0.2)
            taken = time.perf_counter() - start
            proven = all(point.termination is Termination.OPTIMAL for point in points)
            seconds.append(taken if proven else float("inf"))
        medians[family] = statistics.median(seconds)
    bar = "100 exact points of a front, 560 blocks"
    return judged(bar, [max(medians.values())], target=TARGETS[bar], extra={"families": medians})


def chain_problem(*, share: float, seed: int, blocks: int = 560) -> Problem:
    """Return a chain under a latency budget, where changing formats costs latency too."""
    problem = problem_of("transformer", blocks=blocks, formats=8, budgets=2, share=share, seed=seed)
    latency = problem.cost[1]
    size = latency.mean() * _CONVERSION * default_rng(seed).lognormal(0, 0.3, (blocks - 1, 1, 1))
    pair = np.round(size * (1 - np.eye(8))).astype(np.int64)
    edges = np.stack([np.arange(blocks - 1), np.arange(1, blocks)], axis=1)
    return replace(
        problem,
        cost=problem.cost[1:],
        limit=problem.limit[1:],
        edges=edges,
        edge_cost=pair[None],
    )


def _chain(*, seeds: int, shares: tuple[float, ...]) -> Bar:
    """Compare each time; HiGHS' limit counts as its time, so ratios are lower bounds then."""
    solve(chain_problem(share=0.35, seed=99, blocks=40), gap=_CHAIN_GAP)
    ratios, gaps, unproven, seconds = [], [], 0, []
    for seed in range(FIRST_SEED, FIRST_SEED + seeds):
        for share in shares:
            problem = chain_problem(share=share, seed=seed)
            mine, ours = _timed(problem, "auto", limit=10.0)
            limit = max(2.0, _PATIENCE * mine)
            theirs, highs = _timed(problem, "highs", limit=limit)
            unproven += highs.gap > _CHAIN_GAP
            ratios.append(min(theirs, limit) / mine if ours.gap <= _CHAIN_GAP else 0.0)
            gaps.append((ours.gap, highs.gap))
            seconds.append(mine)
    bar = "chain of 560 with edge costs: faster than HiGHS"
    extra = {
        "worst_gap": max(ours for ours, _ in gaps),
        "worst_gap_of_highs": max(highs for _, highs in gaps),
        "instances_where_highs_ran_out_of_time": unproven,
        "median_s": statistics.median(seconds),
        "slowest_s": max(seconds),
        "ratios": ratios,
    }
    return judged(bar, [statistics.median(ratios)], target=TARGETS[bar], extra=extra)


def _timed(problem: Problem, solver: str, *, limit: float) -> tuple[float, Solution]:
    start = time.perf_counter()
    solution = solve(problem, solver, gap=_CHAIN_GAP, time_limit_seconds=limit)
    return time.perf_counter() - start, solution


def _interactions(*, runs: int, seconds: float, answers: int) -> Iterator[Bar]:
    seed = FIRST_SEED
    problem = problem_of("transformer", blocks=560, formats=8, budgets=2, share=0.35, seed=seed)
    generator = default_rng(seed)
    common = generator.standard_normal((_SAMPLES, _COMMON))
    joint = 0.3 * common @ generator.standard_normal((_COMMON, 560))
    joint = joint + generator.standard_normal((_SAMPLES, 560))
    probes = joint[:, :, None] * np.sqrt(problem.loss)[None]

    def answer(seed: int, limit: float) -> tuple[float, Solution]:
        start = time.perf_counter()
        found = solve_interactions(
            problem,
            probes,
            rhos=(0.5,),
            generator=default_rng(seed),
            time_limit_seconds=limit,
        )
        return time.perf_counter() - start, found[0]

    answer(0, 1.0)
    fast = [answer(number, 4.8) for number in range(answers)]
    best = min(answer(100 + number, seconds)[1].loss for number in range(runs))
    best = min(best, *(found.loss for _, found in fast))
    above = [100 * (found.loss / best - 1) for _, found in fast]
    bounds = [found.gap for _, found in fast]
    bar = "interactions: above the best of ten long runs"
    extra = {"stated_gap": max(bounds), "long_runs": runs, "seconds_of_each": seconds}
    yield judged(bar, above, target=TARGETS[bar], statistic="max", extra=extra)
    bar = "interactions: slowest answer"
    yield judged(bar, [taken for taken, _ in fast], target=TARGETS[bar], statistic="max")


def _small_interactions(*, count: int) -> Bar:
    """Compare with exhaustive search written apart, whatever way the solver takes."""
    kept = []
    for seed in range(count):
        generator = default_rng(seed)
        cost = generator.integers(0, 20, (2, 5, 3))
        limit = cost.min(axis=2).sum(axis=1) + generator.integers(0, 40, 2)
        probes = generator.standard_normal((20, 1, 1)) + generator.standard_normal((20, 5, 3))
        problem = Problem(loss=np.zeros((5, 3)), cost=cost, limit=limit)
        (found,) = solve_interactions(problem, probes, rhos=(0.4,), generator=generator)
        choices = np.stack(np.meshgrid(*[range(3)] * 5, indexing="ij"), axis=-1).reshape(-1, 5)
        fitting = [choice for choice in choices if problem.fits(choice)]
        values = []
        for choice in fitting:
            each = probes[:, np.arange(5), choice]
            values.append(0.6 * (each.sum(axis=1) ** 2).mean() + 0.4 * (each**2).mean(axis=0).sum())
        best = min(values, default=float("inf"))
        within = found.loss * (1 - found.gap) <= best * (1 + 1e-9) if values else True
        kept.append(float(within and (not values or found.bound <= best * (1 + 1e-9))))
    bar = "interactions: small instances within their stated gap"
    return judged(bar, kept, target=TARGETS[bar])
