"""Published assignments are the optima that we find, from the authors' own numbers."""

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpsearch.errors import ProblemError
from mpsearch.solvers import Problem, Termination, solve, with_ties
from mpsearch.solvers.published import (
    MetricGroup,
    between,
    group_problem,
    hawq_loss,
    monotone,
    split_bits,
    sweep_groups,
)

DATA = Path(__file__).parents[4] / "shared" / "data"
CONFIGURATIONS = [
    f"{cost}_{share}" for cost in ("size", "bops", "latency") for share in (0.75, 0.5, 0.25)
]


def read(name: str) -> Any:  # noqa: ANN401 - JSON
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{name} is not beside the checkout")
    return json.loads(path.read_text())


def hawq(configuration: str) -> tuple[Problem, np.ndarray, str]:
    model = read("hawq_v3.json")["models"]["resnet18"]
    layers = model["layers"]
    trace = np.array([layer["trace_per_param"] for layer in layers])
    change = np.array([[layer["dw2_b4"], layer["dw2_b8"]] for layer in layers])
    kind, share = configuration.split("_")
    cost = {
        "size": [[layer["params"] * bits for bits in (4, 8)] for layer in layers],
        "bops": [[layer["macs"] * bits * bits for bits in (4, 8)] for layer in layers],
        # Milliseconds as published, in whole units of ten femtoseconds.
        "latency": [
            [round(layer[f"latency_ms_b{bits}"] * 1e11) for bits in (4, 8)] for layer in layers
        ],
    }[kind]
    whole = np.array([cost], dtype=np.int64)
    limit = between(float(whole[0, :, 0].sum()), float(whole[0, :, 1].sum()), share=float(share))
    problem = Problem(loss=hawq_loss(trace, change), cost=whole, limit=np.array([limit]))
    group = np.arange(len(layers))
    for first, second in model["ties"]:
        group[second] = group[first]
    group = np.unique(group, return_inverse=True)[1]
    return with_ties(problem, group), group, model["published_bits"][configuration]


@pytest.mark.zoo
@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_each_configuration_of_hawq_is_the_unique_optimum(configuration: str) -> None:
    problem, group, published = hawq(configuration)
    best = solve(problem)
    assert best.termination is Termination.OPTIMAL
    assert best.choice is not None
    assert "".join("48"[bit] for bit in best.choice[group]) == published
    second = solve(replace(problem, cuts=best.choice[None]))
    assert second.termination is Termination.OPTIMAL
    assert second.loss > best.loss * (1 + 1e-9)


def mixdq(name: str) -> tuple[MetricGroup, np.ndarray]:
    data = read("mixdq_sdxl_turbo.json")
    column, kept = {"content": (5, [0, 1, 2]), "quality": (4, [1, 2])}[name]
    layers = [layer for layer in data["layers"] if layer[1] == name]
    group = MetricGroup(
        name=name,
        gain=np.array([layer[column] for layer in layers])[:, kept],
        weights=np.array([layer[2] for layer in layers]),
        bits=np.array([2, 4, 8])[kept],
    )
    return group, np.array([[int(bits) for bits in layer[6]] for layer in layers])


@pytest.mark.zoo
@pytest.mark.parametrize("configuration", range(4))
@pytest.mark.parametrize("name", ["content", "quality"])
def test_each_group_of_mixdq_is_an_optimum(name: str, configuration: int) -> None:
    group, published = mixdq(name)
    bits = published[:, configuration]
    spent = int(group.weights @ bits)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        problem = group_problem(group, spent / int(group.weights.sum()))
    gain = group.gain[np.arange(len(bits)), np.searchsorted(group.bits, bits)].sum()
    best = solve(problem, gap=1e-9)
    assert best.termination is Termination.OPTIMAL
    assert -best.loss == pytest.approx(gain, abs=1e-4)


@pytest.mark.zoo
def test_values_that_fall_with_more_bits_raise_a_warning() -> None:
    group, _ = mixdq("content")
    with pytest.warns(UserWarning, match="8 of 420 layers"):
        group_problem(group, 4.0)


def test_the_envelope_never_falls_and_touches_what_was_measured() -> None:
    gain = np.array([[1.0, 3.0, 2.0], [1.0, 2.0, 3.0]])
    with pytest.warns(UserWarning, match="1 of 2 layers"):
        envelope = monotone(gain)
    assert envelope.tolist() == [[1.0, 3.0, 3.0], [1.0, 2.0, 3.0]]


@pytest.mark.parametrize("ratio", [0.4, 1.0, 1.7])
def test_a_split_keeps_the_total(ratio: float) -> None:
    first, second = split_bits(4.2, ratio=ratio, weights=0.6)
    assert first == pytest.approx(ratio * second)
    assert (0.6 * first + second) / 1.6 == pytest.approx(4.2)


def test_a_sweep_solves_groups_apart() -> None:
    generator = np.random.default_rng(0)
    groups = [
        MetricGroup(
            name=name,
            gain=np.sort(generator.random((5, 3)), axis=1) * scale,
            weights=generator.integers(1, 9, 5),
            bits=np.array([2, 4, 8]),
        )
        for name, scale in (("content", 1.0), ("quality", 1000.0))
    ]
    plans = list(sweep_groups(*groups, mean_bits=(4.0, 5.0), ratios=(0.8, 1.0)))
    assert [(plan.mean_bits, plan.ratio) for plan in plans] == [
        (4.0, 0.8),
        (4.0, 1.0),
        (5.0, 0.8),
        (5.0, 1.0),
    ]
    for plan in plans:
        spent = sum(
            int(part.spend[0]) for part in plan.solutions.values() if part.spend is not None
        )
        weights = sum(int(group.weights.sum()) for group in groups)
        assert spent <= plan.mean_bits * weights
    with pytest.raises(ProblemError, match="more than 0"):
        group_problem(groups[0], 0.0)
