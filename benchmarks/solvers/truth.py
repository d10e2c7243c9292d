"""Right at every scale, on published instances, and on small ones of every kind."""

import json
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.random import default_rng

from benchmarks.bar import Bar, judged
from benchmarks.solvers.proofs import FIRST_SEED
from benchmarks.solvers.targets import TARGETS
from mpsearch.core.problem import Problem
from mpsearch.core.solution import Termination
from mpsearch.solvers import SOLVERS, solve, with_ties
from mpsearch.solvers.published import MetricGroup, between, group_problem, hawq_loss
from mpsearch.testing.problems import random_problem
from mpsearch.testing.solver_laws import separated_problem

DATA = Path(__file__).parents[3] / "shared" / "data"
_BACK_ENDS = tuple(name for name in SOLVERS if name != "exhaustive")


def run(*, small: bool) -> Iterator[Bar]:
    """Yield the bars of truth."""
    yield _scales(seeds=2 if small else 10)
    yield _hawq()
    yield _mixdq()
    yield _small_instances(count=200 if small else 2000)


def _scales(*, seeds: int) -> Bar:
    same = []
    for seed in range(FIRST_SEED, FIRST_SEED + seeds):
        problem = separated_problem(seed)
        truth = solve(problem, "exhaustive").choice
        scaled = [replace(problem, loss=problem.loss * 10.0**power) for power in range(-12, 13, 6)]
        scaled += [
            replace(problem, cost=problem.cost * factor, limit=problem.limit * factor)
            for factor in (10**3, 10**6, 10**9)
        ]
        for each in scaled:
            for solver in _BACK_ENDS:
                found = solve(each, solver)
                same.append(float(_is_same(found.choice, truth)))
    bar = "scales: the same plan, no false optimum"
    return judged(bar, same, target=TARGETS[bar], extra={"solvers": _BACK_ENDS})


def _is_same(first: np.ndarray | None, second: np.ndarray | None) -> bool:
    return first is not None and second is not None and np.array_equal(first, second)


def _hawq() -> Bar:
    bar = "HAWQ-V3: configurations that are the unique optimum"
    path = DATA / "hawq_v3.json"
    if not path.exists():
        return judged(bar, [], target=TARGETS[bar], extra={"absent": path.name})
    model = json.loads(path.read_text())["models"]["resnet18"]
    unique = 0
    for configuration, published in model["published_bits"].items():
        problem, group = _hawq_problem(model, configuration)
        best = solve(problem)
        if best.choice is None:
            continue
        second = solve(replace(problem, cuts=best.choice[None]))
        bits = "".join("48"[bit] for bit in best.choice[group])
        unique += bits == published and second.loss > best.loss * (1 + 1e-9)
    return judged(bar, [float(unique)], target=TARGETS[bar])


def _hawq_problem(
    model: dict[str, list[dict[str, float]]], configuration: str
) -> tuple[Problem, np.ndarray]:
    layers = model["layers"]
    kind, share = configuration.split("_")
    rows = {
        "size": [[layer["params"] * bits for bits in (4, 8)] for layer in layers],
        "bops": [[layer["macs"] * bits**2 for bits in (4, 8)] for layer in layers],
        "latency": [[layer[f"latency_ms_b{bits}"] * 1e11 for bits in (4, 8)] for layer in layers],
    }[kind]
    cost = np.round(np.array([rows])).astype(np.int64)
    low, high = (float(cost[0, :, place].sum()) for place in (0, 1))
    group = np.arange(len(layers))
    for first, second in np.array(model["ties"]).tolist():
        group[second] = group[first]
    group = np.unique(group, return_inverse=True)[1]
    problem = Problem(
        loss=hawq_loss(
            np.array([layer["trace_per_param"] for layer in layers]),
            np.array([[layer["dw2_b4"], layer["dw2_b8"]] for layer in layers]),
        ),
        cost=cost,
        limit=np.array([between(low, high, share=float(share))]),
    )
    return with_ties(problem, group), group


def _mixdq() -> Bar:
    bar = "MixDQ: group problems reproduced"
    path = DATA / "mixdq_sdxl_turbo.json"
    if not path.exists():
        return judged(bar, [], target=TARGETS[bar], extra={"absent": path.name})
    rows = json.loads(path.read_text())["layers"]
    reproduced, warned = 0, 0
    for name, column, kept in (("content", 5, [0, 1, 2]), ("quality", 4, [1, 2])):
        layers = [row for row in rows if row[1] == name]
        bits = np.array([2, 4, 8])[kept]
        group = MetricGroup(
            name=name,
            gain=np.array([row[column] for row in layers])[:, kept],
            weights=np.array([row[2] for row in layers]),
            bits=bits,
        )
        for place in range(4):
            chosen = np.array([int(row[6][place]) for row in layers])
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                mean = int(group.weights @ chosen) / int(group.weights.sum())
                problem = group_problem(group, mean)
            warned += bool(caught)
            gain = group.gain[np.arange(len(layers)), np.searchsorted(bits, chosen)].sum()
            found = solve(problem, gap=1e-9)
            proven = found.termination is Termination.OPTIMAL
            reproduced += proven and abs(-found.loss - gain) <= 1e-4  # noqa: PLR2004 - the target
    extra = {"warned_of_falling_values": warned}
    return judged(bar, [float(reproduced)], target=TARGETS[bar], extra=extra)


def _small_instances(*, count: int) -> Bar:
    equal, infeasible = [], 0
    for seed in range(count):
        problem = random_problem(
            default_rng(FIRST_SEED + seed),
            with_edges=seed % 2 == 0,
            with_cuts=seed % 3 == 0,
            with_sharing=seed % 5 == 0,
        )
        truth, found = solve(problem, "exhaustive"), solve(problem)
        same = found.termination is truth.termination
        infeasible += truth.choice is None
        if truth.choice is not None:
            same = same and abs(found.loss - truth.loss) <= 1e-9 * max(1.0, abs(truth.loss))
        equal.append(float(same))
    bar = "random small instances equal to exhaustive search"
    return judged(bar, equal, target=TARGETS[bar], extra={"infeasible": infeasible})
