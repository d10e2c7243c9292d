"""Time to a proof, beside HiGHS and CBC on the same instances in the same run."""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

from benchmarks.bar import Bar, judged
from benchmarks.solvers.instances import BUDGET_SHARES, FAMILIES, problem_of
from benchmarks.solvers.targets import GAP, TARGETS
from mpsearch.core.problem import Problem
from mpsearch.core.solution import Termination
from mpsearch.solvers import solve


@final
@dataclass(frozen=True, kw_only=True)
class Case:
    """One setting of the generator and how long a solver may take."""

    blocks: int
    formats: int
    budgets: int
    seeds: int
    limit_seconds: float = 5.0


@final
@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds of one solver on one instance, infinite where the proof is missing."""

    family: str
    seconds: float
    gap: float


def run(*, small: bool) -> Iterator[Bar]:
    """Yield the bars of time to a proof."""
    seeds = 1 if small else 10
    yield _first_call()
    warm_up()
    yield from _against_baselines(seeds=seeds, baselines=1 if small else 2)
    yield from _two_budgets(seeds=seeds)
    case = Case(blocks=5000, formats=8, budgets=3, seeds=seeds)
    yield _median_bar("5000 blocks, 3 budgets: median time to proof", timed(case))
    if small:
        return
    for blocks in (45_000, 100_000):
        for budgets in (1, 2, 3):
            case = Case(blocks=blocks, formats=16, budgets=budgets, seeds=1)
            bar = f"{blocks} blocks, 16 formats: median time to proof"
            yield _median_bar(bar, timed(case), budgets=budgets)
    yield _peak_memory()


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
        for seed in range(case.seeds):
            for share in BUDGET_SHARES:
                problem = problem_of(
                    family,
                    blocks=case.blocks,
                    formats=case.formats,
                    budgets=case.budgets,
                    share=share,
                    seed=seed,
                )
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


def _against_baselines(*, seeds: int, baselines: int) -> Iterator[Bar]:
    ours = timed(Case(blocks=560, formats=8, budgets=1, seeds=seeds))
    for solver, name, limit in (("highs", "HiGHS", 10.0), ("pulp", "CBC", 30.0)):
        # The limit stands for the time of an unfinished baseline, in its favour.
        case = Case(blocks=560, formats=8, budgets=1, seeds=baselines, limit_seconds=limit)
        theirs = timed(case, solver=solver)
        ratios = []
        for family in FAMILIES:
            # An answer of our own without a proof is failed, however long the baseline takes.
            mine = statistics.median(t.seconds for t in ours if t.family == family)
            other = statistics.median(min(t.seconds, limit) for t in theirs if t.family == family)
            ratios.append(other / mine)
        bar = f"560 blocks, 1 budget: faster than {name}"
        extra = {"auto": _by_family(ours), solver: _by_family(theirs)}
        yield judged(bar, ratios, target=TARGETS[bar], statistic="min", extra=extra)


def _two_budgets(*, seeds: int) -> Iterator[Bar]:
    timings = timed(Case(blocks=560, formats=8, budgets=2, seeds=seeds))
    yield _median_bar("560 blocks, 2 budgets: median time to proof", timings)
    bar = "560 blocks, 2 budgets: slowest transformer"
    seconds = [timing.seconds for timing in timings if timing.family == "transformer"]
    yield judged(bar, seconds, target=TARGETS[bar], statistic="max")
