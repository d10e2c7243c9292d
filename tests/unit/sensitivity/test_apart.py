"""Weights and inputs measured apart add up as squares, or as signed numbers with cross terms."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mpsearch.core.files import load_table, save_table
from mpsearch.core.tables import SensitivityTable
from mpsearch.errors import UsageError
from mpsearch.execution import observe_ranges
from mpsearch.sensitivity import METRICS
from mpsearch.sensitivity.apart import Measures, measure_apart
from mpsearch.tasks import TASKS, read_data
from mpsearch.tracing import trace_model
from mpsearch.workflow.measure import measure

FORMATS = ("w8a8", "w6a8", "w4a8", "w4", "w4a8-token")
LAYERS = 10
CHECKED = 2  # the fewest


class Asked:
    """What was asked of a metric, pair by pair."""

    def __init__(self) -> None:
        self.pairs: list[tuple[str, str]] = []

    def watching(self, measure: Measures) -> Measures:
        def measured(
            formats: Sequence[str], offered: Mapping[str, Sequence[str]]
        ) -> SensitivityTable:
            self.pairs += [(layer, name) for layer, names in offered.items() for name in names]
            return measure(formats, offered)

        return measured


@pytest.fixture(scope="module")
def model() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [part for _ in range(LAYERS - 1) for part in (nn.Linear(12, 12), nn.Tanh())]
    return nn.Sequential(*layers, nn.Linear(12, 4))


@pytest.fixture(scope="module")
def samples() -> Tensor:
    return torch.randn(24, 12, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def measures(
    model: nn.Sequential, samples: Tensor, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Measures]:
    traced = trace_model(model, [samples])
    data = read_data(
        {"input": samples},
        input_names=traced.input_names,
        batch_size=24,
        folder=tmp_path_factory.mktemp("data"),
    )
    quantizers = observe_ranges(traced, data)

    def by(metric: str) -> Measures:
        def measured(
            formats: Sequence[str], offered: Mapping[str, Sequence[str]]
        ) -> SensitivityTable:
            return METRICS[metric].measure(
                traced,
                task=TASKS["embedding"],
                data=data,
                formats=formats,
                offered=offered,
                quantizers=quantizers,
            )

        return measured

    return {metric: by(metric) for metric in ("output_error", "output_probe", "weight_error")}


def _offered(measures: Measures) -> dict[str, tuple[str, ...]]:
    layers = measures(["w4"], {}).layers
    return dict.fromkeys(layers, FORMATS)


@pytest.mark.parametrize("metric", ["output_error", "output_probe"])
def test_sums_come_near_what_is_measured_jointly_at_less_work(
    measures: dict[str, Measures], metric: str
) -> None:
    offered, asked = _offered(measures["weight_error"]), Asked()
    joint = measures[metric](FORMATS, offered)
    apart = measure_apart(asked.watching(measures[metric]), formats=FORMATS, offered=offered)
    assert apart.formats == FORMATS
    assert np.isfinite(apart.loss).all()
    ratios = apart.loss / joint.loss
    assert 0.8 < np.median(ratios) < 1.25
    # Three weights and two inputs; a weight alone stays itself.
    np.testing.assert_allclose(apart.loss[:, 3], joint.loss[:, 3], rtol=1e-12)
    jointly = [pair for pair in asked.pairs if pair[1] in FORMATS and pair[1] != "w4"]
    checked = {layer for layer, _ in jointly}
    assert len(checked) == CHECKED
    assert len(asked.pairs) == LAYERS * (3 + 2) + len(checked) * 4
    # Where it was looked at, the entries are the joint ones, and the report is of them.
    rows = [apart.layers.index(layer) for layer in sorted(checked)]
    np.testing.assert_allclose(apart.loss[rows], joint.loss[rows], rtol=1e-12)
    assert apart.combining is not None
    assert apart.combining.checked == len(checked) * 4
    assert 0 < apart.combining.median <= apart.combining.largest < 1


def test_the_error_reported_is_that_of_the_sums(measures: dict[str, Measures]) -> None:
    """By hand, from the single measurements."""
    offered = _offered(measures["weight_error"])
    single = measures["output_error"](
        ("w8", "w6", "w4", "a8", "a8-token"),
        dict.fromkeys(offered, ("w8", "w6", "w4", "a8", "a8-token")),
    )
    joint = measures["output_error"](FORMATS, offered)
    apart = measure_apart(measures["output_error"], formats=FORMATS, offered=offered)
    parts = {"w8a8": (0, 3), "w6a8": (1, 3), "w4a8": (2, 3), "w4a8-token": (2, 4)}
    errors = []
    for row in range(LAYERS):
        for name, (weight, inputs) in parts.items():
            column = FORMATS.index(name)
            total = single.loss[row, weight] + single.loss[row, inputs]
            if row in {0, LAYERS - 1}:
                errors.append(abs(total / joint.loss[row, column] - 1))
            else:
                assert apart.loss[row, column] == pytest.approx(total, rel=1e-12)
                spread = np.hypot(single.stderr[row, weight], single.stderr[row, inputs])
                assert apart.stderr[row, column] == pytest.approx(spread, rel=1e-12)
    assert apart.combining is not None
    assert apart.combining.median == pytest.approx(float(np.median(errors)), rel=1e-12)
    assert apart.combining.largest == pytest.approx(max(errors), rel=1e-12)


def test_signed_numbers_add_with_their_cross_terms(measures: dict[str, Measures]) -> None:
    offered = _offered(measures["weight_error"])
    names = ("w4", "a8")
    single = measures["output_probe"](names, dict.fromkeys(offered, names))
    apart = measure_apart(
        measures["output_probe"], formats=("w4a8",), offered=dict.fromkeys(offered, ("w4a8",))
    )
    assert single.numbers is not None
    assert apart.numbers is not None
    summed = single.numbers[:, 1:-1].astype(np.float64).sum(axis=2)
    np.testing.assert_allclose(apart.numbers[:, 1:-1, 0], summed, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(apart.loss[1:-1, 0], np.square(summed).mean(axis=0), rtol=1e-4)


def test_without_pairs_nothing_is_taken_apart(measures: dict[str, Measures]) -> None:
    asked = Asked()
    offered = dict.fromkeys(_offered(measures["weight_error"]), ("w8", "w4"))
    found = measure_apart(
        asked.watching(measures["weight_error"]), formats=("w8", "w4"), offered=offered
    )
    assert found.combining is None
    assert len(asked.pairs) == LAYERS * 2


def test_what_is_not_offered_stays_unknown(measures: dict[str, Measures]) -> None:
    layers = list(_offered(measures["weight_error"]))
    offered = dict.fromkeys(layers, ("w4a8",)) | {layers[3]: ("w4",)}
    found = measure_apart(measures["weight_error"], formats=("w4a8", "w4"), offered=offered)
    assert np.isnan(found.loss[3, 0])
    assert np.isnan(np.delete(found.loss[:, 1], 3)).all()
    assert np.isfinite(found.loss[3, 1])


def test_a_user_reaches_it_and_the_file_tells_of_it(
    model: nn.Sequential, samples: Tensor, tmp_path: Path
) -> None:
    found = measure(
        model,
        {"input": samples},
        task="embedding",
        formats=("w8a8", "w4a8-mse"),
        runtime="simulation",
        ranges="entropy",
        pairs="apart",
        cache=tmp_path / "cache",
    )
    table = found.sensitivity
    assert {each.method for each in table.quantizers.values()} == {"entropy"}
    assert table.combining is not None
    assert table.combining.checked == CHECKED * 2
    save_table(table, tmp_path / "table.npz")
    assert load_table(tmp_path / "table.npz", SensitivityTable).combining == table.combining
    with pytest.raises(UsageError, match=r"'median' is unknown\. Expected one of mse"):
        measure(model, {"input": samples}, cache=tmp_path, ranges="median")
    with pytest.raises(UsageError, match=r"'both' of weight and input are unknown"):
        measure(model, {"input": samples}, cache=tmp_path, pairs="both")
