"""The latency model against plans whose true times are known."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from jaxtyping import Float, Int
from numpy import ndarray

from mpsearch.core.graph import Layer, LayerGraph, Op
from mpsearch.cost.node_table import (
    LatencyModel,
    Observations,
    calibrated,
    fit_node_table,
    held_out_errors,
    nearest_producers,
)
from mpsearch.cost.sampling import random_choices

LAYERS, FORMATS, KINDS = 24, 3, 4
SIGNATURES = [f"kind {n % KINDS}" for n in range(LAYERS)]
PRODUCERS = np.arange(-1, LAYERS - 1)


@dataclass(frozen=True, kw_only=True)
class Truth:
    """A device: time by kind and format, by boundary, and per layer."""

    own: Float[ndarray, "KINDS FORMATS"]
    edge: Float[ndarray, "KINDS FORMATS FORMATS"]  # own format, producer's format
    extra: Float[ndarray, " LAYERS"]

    def layer_seconds(self, choice: Int[ndarray, "N LAYERS"]) -> Float[ndarray, "N LAYERS"]:
        kind = np.arange(LAYERS) % KINDS
        seconds = self.own[kind, choice] + self.extra
        seconds[:, 1:] += self.edge[kind[1:], choice[:, 1:], choice[:, :-1]]
        return np.asarray(seconds)


def _truth(*, edge_share: float = 0.1) -> Truth:
    generator = np.random.default_rng(3)
    own = generator.uniform(50e-6, 400e-6, (KINDS, FORMATS))
    edge = edge_share * own[:, :, None] * generator.uniform(0, 1, (KINDS, FORMATS, FORMATS))
    edge[:, np.arange(FORMATS), np.arange(FORMATS)] = 0
    return Truth(own=own, edge=edge, extra=generator.uniform(0, 30e-6, LAYERS))


def _plans(count: int, *, seed: int) -> Int[ndarray, "N LAYERS"]:
    allowed = np.ones((LAYERS, FORMATS), dtype=np.bool_)
    uniform = np.repeat(np.arange(FORMATS)[:, None], LAYERS, axis=1)
    mixed = random_choices(allowed, count=count, generator=np.random.default_rng(seed))
    return np.concatenate([uniform, mixed])


def _observed(truth: Truth, choice: Int[ndarray, "N LAYERS"], *, noise: float = 0) -> Observations:
    generator = np.random.default_rng(4)
    exact = truth.layer_seconds(choice)
    seconds = exact.sum(axis=1) * (1 + 0.1 * noise * generator.standard_normal(len(choice)))
    counters = exact * np.exp(noise * generator.standard_normal(exact.shape))
    counters *= (seconds / counters.sum(axis=1))[:, None]
    return Observations(choice=choice, layer_seconds=counters, seconds=seconds)


def _fit(observed: Observations) -> LatencyModel:
    model = fit_node_table(observed, signatures=SIGNATURES, producers=PRODUCERS, formats=FORMATS)
    return calibrated(model, observed)


def _errors(model: LatencyModel, truth: Truth, *, seed: int = 99) -> Float[ndarray, " N"]:
    unseen = _plans(30, seed=seed)[FORMATS:]
    exact = truth.layer_seconds(unseen).sum(axis=1)
    return np.asarray(model.seconds(unseen) / exact - 1)


def test_exact_counters_predict_unseen_plans() -> None:
    truth = _truth()
    errors = _errors(_fit(_observed(truth, _plans(8, seed=0))), truth)
    assert np.abs(errors).max() < 0.01


def test_layers_of_one_signature_keep_their_own_glue() -> None:
    truth = _truth(edge_share=0.0)
    layer = _fit(_observed(truth, _plans(16, seed=0))).layer
    for kind in range(KINDS):
        found, extra = layer[kind::KINDS, 0], truth.extra[kind::KINDS]
        assert found - found.mean() == pytest.approx(extra - extra.mean(), abs=3e-6)


def test_boundaries_are_seen() -> None:
    truth = _truth(edge_share=0.5)
    observed = _observed(truth, _plans(8, seed=0))
    model = _fit(observed)
    blind = replace(model, edge=np.zeros_like(model.edge))
    seeing, missing = _errors(model, truth), _errors(calibrated(blind, observed), truth)
    assert np.abs(seeing).max() < 0.05
    assert np.abs(missing).mean() > 4 * np.abs(seeing).mean()


def test_edges_are_indexed_by_producer_then_consumer() -> None:
    truth = _truth(edge_share=0.0)
    # Only a consumer in format 2 behind a producer in format 0 pays.
    truth.edge[:, 2, 0] = 150e-6
    model = _fit(_observed(truth, _plans(24, seed=0)))
    assert model.edge[5, 0, 2] > 80e-6
    assert abs(model.edge[5, 2, 0]) < 20e-6
    assert not model.edge[0].any()


def test_noise_of_counters_averages_out() -> None:
    truth = _truth()
    errors = _errors(_fit(_observed(truth, _plans(8, seed=0), noise=0.15)), truth)
    assert np.sqrt(np.mean(errors**2)) < 0.03


def test_one_spoiled_plan_does_not_spoil_the_model() -> None:
    truth = _truth()
    observed = _observed(truth, _plans(8, seed=0))
    layer_seconds, seconds = observed.layer_seconds.copy(), observed.seconds.copy()
    layer_seconds[5] *= 3
    seconds[5] *= 3
    spoiled = Observations(choice=observed.choice, layer_seconds=layer_seconds, seconds=seconds)
    assert np.abs(_errors(_fit(spoiled), truth)).max() < 0.04


def test_a_combination_that_no_plan_had_backs_off_to_the_format_alone() -> None:
    truth = _truth(edge_share=0.0)
    uniform = _plans(0, seed=0)
    model = _fit(_observed(truth, uniform))
    assert np.abs(_errors(model, truth)).max() < 0.03


def test_a_format_that_no_plan_had_is_never_predicted_faster() -> None:
    truth = _truth()
    choice = np.minimum(_plans(8, seed=0), 1)
    model = _fit(_observed(truth, choice))
    assert (model.layer[:, 2] == model.layer[:, :2].max(axis=1)).all()


def test_calibration_finds_an_offset_and_a_slope() -> None:
    truth = _truth()
    choice = _plans(8, seed=0)
    observed = _observed(truth, choice)
    model = fit_node_table(observed, signatures=SIGNATURES, producers=PRODUCERS, formats=FORMATS)
    stretched = replace(observed, seconds=observed.seconds * 1.05)
    found = calibrated(model, stretched)
    assert found.seconds(choice) == pytest.approx(stretched.seconds, rel=0.01)
    assert found.slope == pytest.approx(1.05, abs=0.03)


def test_held_out_errors_are_those_of_plans_the_fit_has_not_seen() -> None:
    truth = _truth()
    observed = _observed(truth, _plans(10, seed=0), noise=0.1)
    seconds = observed.seconds.copy()
    seconds[7] *= 1.2
    wrong = replace(observed, seconds=seconds)
    places = [*range(3, 13)]
    errors = held_out_errors(
        wrong, signatures=SIGNATURES, producers=PRODUCERS, formats=FORMATS, held_out=places
    )
    assert errors[4] == pytest.approx(1 / 1.2 - 1, abs=0.03)
    assert np.abs(np.delete(errors, 4)).max() < 0.05
    alone = wrong.without(7)
    model = fit_node_table(alone, signatures=SIGNATURES, producers=PRODUCERS, formats=FORMATS)
    predicted = calibrated(model, alone).seconds(wrong.choice[7:8])
    assert errors[4] == pytest.approx(predicted[0] / seconds[7] - 1, abs=1e-12)


def test_the_nearest_of_several_producers_counts() -> None:
    layer = Layer(
        name="", op=Op.LINEAR, weight_shape=(1, 1), input_shape=(1, 1), output_shape=(1, 1),
        macs=1, inputs_from="",
    )  # fmt: skip
    graph = LayerGraph(
        layers=tuple(replace(layer, name=str(n)) for n in range(4)),
        edges=((0, 1), (0, 3), (1, 2), (2, 3), (3, 1)),
        fingerprint="",
    )
    assert nearest_producers(graph).tolist() == [-1, 0, 1, 2]
