"""Scores of one layer at a time equal their definitions, computed on the module itself."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._pytree import tree_leaves

from mpsearch.core.cache import Cache
from mpsearch.core.formats import FORMATS
from mpsearch.core.tables import SensitivityTable
from mpsearch.errors import DataError
from mpsearch.execution import PrefixStore, layer_override
from mpsearch.quant.fake_torch import fake_quantise_weight
from mpsearch.sensitivity import METRICS, MaskedError, WeightError, Work, merged
from mpsearch.tasks import TASKS, CallableTask, Dataset, read_data
from mpsearch.testing import networks
from mpsearch.tracing import trace_model

NAMES = ("w4", "w2")
Measure = Callable[[Tensor, Tensor], float]


class Case:
    """A small classifier with labelled samples."""

    def __init__(self, folder: Path, *, labels: Tensor | None = None) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 5))
        self.samples = torch.randn(9, 6)
        self.labels = torch.randint(0, 5, (9,)) if labels is None else labels
        self.data = self._data(folder)
        self.traced = trace_model(self.model, {"input": self.samples[:2]})

    def _data(self, folder: Path) -> Dataset:
        return read_data(
            [
                {"input": self.samples[cut : cut + 4], "label": self.labels[cut : cut + 4]}
                for cut in (0, 4, 8)
            ],
            input_names=("input",),
            batch_size=4,
            folder=folder,
        )

    def table(self, name: str) -> SensitivityTable:
        return METRICS[name].measure(
            self.traced, task=TASKS["classification"], data=self.data, formats=NAMES
        )

    @contextmanager
    def with_weight(self, layer: str, weight: Tensor) -> Iterator[None]:
        module = self.model.get_submodule(layer)
        assert isinstance(module, nn.Linear)
        before = module.weight.detach().clone()
        with torch.no_grad():
            module.weight.copy_(weight)
            yield
            module.weight.copy_(before)

    def expected(self, measure: Measure) -> list[list[float]]:
        with torch.no_grad():
            full = self.model(self.samples)
            rows = []
            for layer in self.traced.graph.names:
                row = []
                for name in NAMES:
                    stored = fake_quantise_weight(self.traced.weight(layer), FORMATS[name].weight)
                    with self.with_weight(layer, stored):
                        row.append(measure(full, self.model(self.samples)))
                rows.append(row)
        return rows


def _kl(full: Tensor, other: Tensor) -> float:
    return float(
        functional.kl_div(
            other.double().log_softmax(1),
            full.double().log_softmax(1),
            log_target=True,
            reduction="batchmean",
        )
    )


def _cosine(full: Tensor, other: Tensor) -> float:
    return float(1 - functional.cosine_similarity(full.double(), other.double()).mean())


def _sqnr(full: Tensor, other: Tensor) -> float:
    noise = (full - other).double().square().mean(1)
    ratio = full.double().square().mean(1) / (noise + 1e-4)
    return 10 * math.log10(float(ratio.mean()))


@pytest.mark.parametrize(("name", "measure"), [("output_kl", _kl), ("output_cosine", _cosine)])
def test_divergences_equal_their_definitions(name: str, measure: Measure, tmp_path: Path) -> None:
    case = Case(tmp_path)
    np.testing.assert_allclose(case.table(name).loss, case.expected(measure), rtol=1e-3, atol=1e-9)


def test_sqnr_falls_from_that_of_full_precision(tmp_path: Path) -> None:
    case = Case(tmp_path)
    wanted = case.expected(lambda full, other: _sqnr(full, full) - _sqnr(full, other))
    np.testing.assert_allclose(case.table("sqnr_list").loss, wanted, rtol=1e-3)


def test_the_error_of_sqnr_is_that_of_resampling(tmp_path: Path) -> None:
    """A second method: the bootstrap over samples, within a third (9 samples are few)."""
    case = Case(tmp_path)
    table = case.table("sqnr_list")
    with torch.no_grad():
        full = case.model(case.samples)
        stored = fake_quantise_weight(case.traced.weight("2"), FORMATS["w2"].weight)
        with case.with_weight("2", stored):
            other = case.model(case.samples)
    random = np.random.default_rng(0)
    drawn = []
    for _ in range(2000):
        rows = torch.from_numpy(random.integers(0, 9, 9))
        drawn.append(_sqnr(full[rows], full[rows]) - _sqnr(full[rows], other[rows]))
    assert table.stderr[1, 1] == pytest.approx(float(np.std(drawn)), rel=0.34)


def test_the_rise_of_the_loss_equals_its_definition(tmp_path: Path) -> None:
    case = Case(tmp_path)

    def rise(full: Tensor, other: Tensor) -> float:
        losses = [functional.cross_entropy(each.double(), case.labels) for each in (other, full)]
        return float(losses[0] - losses[1])

    np.testing.assert_allclose(
        case.table("loss_change").loss, case.expected(rise), rtol=1e-3, atol=1e-6
    )


def test_the_text_is_the_label_of_a_language_model(tmp_path: Path) -> None:
    model, example = networks.transformer()
    model.eval()
    traced = trace_model(model, example)
    data = read_data([example], input_names=tuple(example), batch_size=2, folder=tmp_path)
    table = METRICS["loss_change"].measure(
        traced, task=TASKS["causal_lm"], data=data, formats=["w3"], offered={"head": ["w3"]}
    )
    head = model.get_submodule("head")
    assert isinstance(head, nn.Linear)
    losses = []
    for weight in (head.weight, fake_quantise_weight(head.weight, FORMATS["w3"].weight)):
        with torch.no_grad():
            head.weight.copy_(weight)
            logits = model(**example)["logits"].double()
        ids, lengths = example["input_ids"], (6, 4)
        each = [
            functional.cross_entropy(logits[row, : length - 1], ids[row, 1:length])
            for row, length in enumerate(lengths)
        ]
        losses.append(float(torch.stack(each).mean()))
    row = table.layers.index("head")
    assert table.loss[row, 0] == pytest.approx(losses[1] - losses[0], rel=1e-4)


def test_labels_that_are_missing_or_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"reach from 4 to 7\. Expected.*0 to 4"):
        Case(tmp_path, labels=torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 0])).table("loss_change")
    case = Case(tmp_path)
    plain = read_data(
        [{"input": case.samples}], input_names=("input",), batch_size=9, folder=tmp_path
    )
    with pytest.raises(DataError, match=r"needs labels; the data has no labels"):
        METRICS["loss_change"].measure(
            case.traced, task=TASKS["classification"], data=plain, formats=["w4"]
        )
    with pytest.raises(DataError, match=r"labels of shape \(4,\) for outputs of shape \(4, 5\)"):
        METRICS["loss_change"].measure(
            case.traced, task=TASKS["embedding"], data=case.data, formats=["w4"]
        )


def test_masking_scores_share_the_divergence_of_the_layer(tmp_path: Path) -> None:
    case = Case(tmp_path)
    table = case.table("masked_error")
    for row, layer in enumerate(case.traced.graph.names):
        weight = case.traced.weight(layer).detach().clone()
        with torch.no_grad():
            full = case.model(case.samples)
            with case.with_weight(layer, torch.zeros_like(weight)):
                masked = _kl(full, case.model(case.samples))
        for column, name in enumerate(NAMES):
            change = fake_quantise_weight(weight, FORMATS[name].weight) - weight
            share = float(change.square().sum() / weight.square().sum())
            assert table.loss[row, column] == pytest.approx(masked * share, rel=1e-3)


def test_masking_runs_one_pass_per_layer_and_none_again(tmp_path: Path) -> None:
    case = Case(tmp_path)
    works: list[Work] = []
    for _ in range(2):
        METRICS["masked_error"].measure(
            case.traced,
            task=TASKS["classification"],
            data=case.data,
            formats=NAMES,
            cache=Cache(folder=tmp_path / "cache"),
            report=works.append,
        )
    assert works[0].macs == 9 * ((48 + 40) + (48 + 40) + 40)
    assert works[1].macs == 0


def test_synthetic_inputs_stand_for_the_data(tmp_path: Path) -> None:
    """The numbers of the data do not matter, its shapes do."""
    case = Case(tmp_path)
    other = read_data(
        [{"input": rows} for rows in torch.split(case.samples * 7, 4)],
        input_names=("input",),
        batch_size=4,
        folder=tmp_path,
    )
    tables = [
        MaskedError(is_synthetic=True).measure(
            case.traced, task=TASKS["classification"], data=data, formats=NAMES
        )
        for data in (case.data, other)
    ]
    np.testing.assert_allclose(tables[0].loss, tables[1].loss, rtol=1e-6)
    assert not np.allclose(tables[0].loss, case.table("masked_error").loss, rtol=0.01)


@pytest.mark.parametrize("is_relative", [False, True])
def test_weight_errors_equal_their_definition(tmp_path: Path, *, is_relative: bool) -> None:
    case = Case(tmp_path)
    table = WeightError(is_relative=is_relative).measure(
        case.traced, task=TASKS["classification"], data=case.data, formats=NAMES
    )
    for row, layer in enumerate(table.layers):
        weight = case.traced.weight(layer).detach()
        for column, name in enumerate(NAMES):
            change = fake_quantise_weight(weight, FORMATS[name].weight) - weight
            whole = float(weight.square().sum()) if is_relative else 1.0
            wanted = float(change.square().sum()) / whole
            assert table.loss[row, column] == pytest.approx(wanted, rel=1e-5)
    assert (table.stderr == 0).all()


@pytest.mark.parametrize("network", [networks.convolutions, networks.forms, networks.transformer])
def test_a_store_on_disk_gives_the_same_bits_within_its_limit(network: networks.Network) -> None:
    traced = trace_model(*network())
    whole = PrefixStore(traced, traced.example)
    small = PrefixStore(traced, traced.example, limit_bytes=2000)
    assert whole.spilled_bytes == 0
    assert small.spilled_bytes > 2000
    for layer in (None, *traced.graph.names):
        overrides = {} if layer is None else layer_override(traced, layer, number=FORMATS["w3"])
        one, other = (tree_leaves(store.rerun(overrides)) for store in (whole, small))
        assert all(torch.equal(*pair) for pair in zip(one, other, strict=True))


def test_shards_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    case = Case(tmp_path)
    one, other = case.table("output_error"), case.table("output_kl")
    with pytest.raises(DataError, match="differ in metric"):
        merged([one, other])
    with pytest.raises(DataError, match="no tables"):
        merged([])
    doubled = METRICS["output_error"].measure(
        case.traced, task=CallableTask(function=_doubled), data=case.data, formats=NAMES
    )
    with pytest.raises(DataError, match="layer '0' in 'w4' the losses"):
        merged([one, doubled])


def _doubled(raw: Tensor, batch: object) -> Tensor:  # noqa: ARG001 - a task's callable
    return raw * 2
