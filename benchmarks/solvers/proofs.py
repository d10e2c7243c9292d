"""Time to a proof, beside HiGHS and CBC on the same instances in the same run."""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import final

from benchmarks.bar import Bar, judged
from benchmarks.solvers.instances import BUDGET_SHARES, FAMILIES, problem_of
from benchmarks.solvers.targets import GAP, TARGETS
from mpsearch.core.problem import Problem
from mpsearch.core.solution import Termination
from mpsearch.solvers import solve

# Thresholds of the solvers were tuned on seeds 0 to 24; bars are judged on others.
FIRST_SEED = 100
_MOST_SEEDS, _SEEDS_OF_LARGE = 10, 5
# A rival gets this many times our own time on each instance, and a second at least; where it
# has no proof by then, its time counts as the limit: the ratio is then a lower bound.
_PATIENCE = {"highs": 30.0, "pulp": 130.0}


@final
@dataclass(frozen=True, kw_only=True)
class Case:
    """One setting of the generator and how long a solver may take."""

    blocks: int
    formats: int
    budgets: int
    seeds: int
    limit_seconds: float = 5.0
    shares: tuple[float, ...] = BUDGET_SHARES

    def instances(self, family: str) -> Iterator[Problem]:
        """Yield the instances of a family, seed by seed."""
        for seed in range(FIRST_SEED, FIRST_SEED + self.seeds):
            for share in self.shares:
                yield problem_of(
                    family,
                    blocks=self.blocks,
                    formats=self.formats,
                    budgets=self.budgets,
                    share=share,
                    seed=seed,
                )


@final
@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds of one solver on one instance, infinite where the proof is missing."""

    family: str
    seconds: float
    gap: float


def run(*, small: bool) -> Iterator[Bar]:
    """Yield the bars of time to a proof."""
    seeds = 1 if small else _MOST_SEEDS
    yield _first_call()
    warm_up()
    yield from _against_rivals(seeds=seeds)
    yield from _two_budgets(seeds=seeds)
    yield _three_budgets(
        seeds=seeds,
        shares=BUDGET_SHARES[1:2] if small else BUDGET_SHARES,
        seconds_of_highs=1.0 if small else 5.0,
    )
    if small:
        return
    yield _peak_memory()
    for blocks in (45_000, 100_000):
        for budgets in (1, 2, 3):
            case = Case(blocks=blocks, formats=16, budgets=budgets, seeds=_SEEDS_OF_LARGE)
            bar = f"{blocks} blocks, 16 formats: median time to proof"
            yield _median_bar(bar, timed(case), budgets=budgets)


def warm_up() -> None:
    """Let the machine code of every loop be there before anything is timed."""
    for family in FAMILIES:
        for budgets in (1, 2, 3):
            problem = problem_of(family, blocks=60, formats=8, budgets=budgets, share=0.35, seed=99)
            solve(problem, time_limit_seconds=2.0)


def timed(
    case: Case, *, solver: str = "auto", families: tuple[str, ...] = tuple(FAMILIES)
) -> list[Timing]:
    """Return one timing per family, seed and share of the budget."""
    timings = []
    for family in families:
        for problem in case.instances(family):
            seconds, gap = _time(problem, solver=solver, limit_seconds=case.limit_seconds)
            timings.append(Timing(family=family, seconds=seconds, gap=gap))
    return timings


def worst_median(timings: list[Timing]) -> float:
    """Return the largest of the families' median seconds."""
    families = {timing.family for timing in timings}
    return max(
        statistics.median(timing.seconds for timing in timings if timing.family == family)
        for family in families
    )


def _time(problem: Problem, *, solver: str, limit_seconds: float) -> tuple[float, float]:
    start = time.perf_counter()
    solution = solve(problem, solver, time_limit_seconds=limit_seconds, gap=GAP)
    seconds = time.perf_counter() - start
    proven = solution.termination is Termination.OPTIMAL
    return seconds if proven else float("inf"), solution.gap


def _median_bar(name: str, timings: list[Timing], **extra: object) -> Bar:
    gaps = [timing.gap for timing in timings]
    facts = {**extra, **_by_family(timings), "worst_gap": max(gaps)}
    return judged(name, [worst_median(timings)], target=TARGETS[name], extra=facts)


def _by_family(timings: list[Timing]) -> dict[str, object]:
    facts: dict[str, object] = {}
    for family in sorted({timing.family for timing in timings}):
        seconds = [timing.seconds for timing in timings if timing.family == family]
        facts[family] = {
            "median_s": statistics.median(seconds),
            "slowest_s": max(seconds),
            "spread_s": statistics.quantiles(seconds, n=10)[::8] if len(seconds) > 1 else seconds,
            "proven": sum(value < float("inf") for value in seconds),
            "instances": len(seconds),
        }
    return facts


def _first_call() -> Bar:
    seconds = _in_fresh_process(blocks=560, formats=8, budgets=2)["seconds"]
    bar = "first call of a process"
    return judged(bar, [seconds], target=TARGETS[bar], extra={"includes": "loading numba"})


def _peak_memory() -> Bar:
    found = [
        _in_fresh_process(blocks=100_000, formats=16, budgets=budgets) for budgets in (1, 2, 3)
    ]
    bar = "100000 blocks, 16 formats: peak memory"
    values = [each["megabytes"] for each in found]
    return judged(bar, values, target=TARGETS[bar], statistic="max")


def _in_fresh_process(**settings: int) -> dict[str, float]:
    """Return seconds and peak memory of one solve in a process of its own."""
    code = (
        "import json, resource, time\n"
        "from benchmarks.solvers.instances import problem_of\n"
        "from mpsearch.solvers import solve\n"
        f"problem = problem_of('transformer', share=0.35, seed=0, **{settings!r})\n"
        "start = time.perf_counter()\n"
        "solve(problem, time_limit_seconds=5)\n"
        "seconds = time.perf_counter() - start\n"
        "peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n"
        "print(json.dumps({'seconds': seconds, 'megabytes': peak}))\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    facts: dict[str, float] = json.loads(run.stdout)
    return facts


def _against_rivals(*, seeds: int) -> Iterator[Bar]:
    """Compare medians of times; an answer of our own without a proof is infinitely slow."""
    case = Case(blocks=560, formats=8, budgets=1, seeds=seeds)
    ours = timed(case)
    for solver, name in (("highs", "HiGHS"), ("pulp", "CBC")):
        theirs, unproven = _rival(case, ours, solver=solver)
        ratios = {family: _median(theirs, family) / _median(ours, family) for family in FAMILIES}
        bar = f"560 blocks, 1 budget: faster than {name}"
        extra = {
            "ratio": ratios,
            "instances_where_the_rival_ran_out_of_time": unproven,
            "auto": _by_family(ours),
            solver: _by_family(theirs),
        }
        values = list(ratios.values())
        yield judged(bar, values, target=TARGETS[bar], statistic="min", extra=extra)


def _rival(case: Case, ours: list[Timing], *, solver: str) -> tuple[list[Timing], int]:
    """Return a rival's timings, its limit in place of a missing proof, and how many miss."""
    instances = [(name, each) for name in FAMILIES for each in case.instances(name)]
    timings, unproven = [], 0
    for (family, problem), mine in zip(instances, ours, strict=True):
        limit = max(1.0, _PATIENCE[solver] * min(mine.seconds, case.limit_seconds))
        seconds, gap = _time(problem, solver=solver, limit_seconds=limit)
        unproven += seconds == float("inf")
        timings.append(Timing(family=family, seconds=min(seconds, limit), gap=gap))
    return timings, unproven


def _median(timings: list[Timing], family: str) -> float:
    return statistics.median(each.seconds for each in timings if each.family == family)


def _two_budgets(*, seeds: int) -> Iterator[Bar]:
    timings = timed(Case(blocks=560, formats=8, budgets=2, seeds=seeds))
    yield _median_bar("560 blocks, 2 budgets: median time to proof", timings)
    bar = "560 blocks, 2 budgets: slowest transformer"
    seconds = [timing.seconds for timing in timings if timing.family == "transformer"]
    yield judged(bar, seconds, target=TARGETS[bar], statistic="max")


def _three_budgets(*, seeds: int, shares: tuple[float, ...], seconds_of_highs: float) -> Bar:
    case = Case(blocks=5000, formats=8, budgets=3, seeds=seeds, shares=shares)
    timings = timed(case)
    beside = replace(case, seeds=1, limit_seconds=seconds_of_highs)
    theirs = {
        family: [each.gap for each in timed(beside, solver="highs", families=(family,))]
        for family in FAMILIES
    }
    name = "5000 blocks, 3 budgets: median time to proof"
    return _median_bar(name, timings, gap_of_highs_at_the_limit=theirs)
