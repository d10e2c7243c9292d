"""Laws of every sensitivity metric: inherit the suite and say which metric it is for."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mpsearch.core.cache import Cache
from mpsearch.core.graph import is_product_name
from mpsearch.core.plan import ActivationQuantizer
from mpsearch.core.tables import SensitivityTable
from mpsearch.execution import observe_ranges, run
from mpsearch.sensitivity import AbstractMetric, merged
from mpsearch.tasks import TASKS, AbstractTask, Batch, CallableTask, read_data
from mpsearch.testing import networks
from mpsearch.tracing import TracedModel, trace_model

_FORMATS = ("fp32", "bf16", "w8a8", "w8", "w4", "w2")
_SAMPLES = 6


class MetricLaws(ABC):
    """What a score of layers and formats must keep true, on every task."""

    # Sums over a batch of another size round otherwise; float32 through a few layers.
    split_tolerance: float = 1e-3
    # Whether the data of the tasks holds labels.
    labelled: bool = False
    # Whether fewer bits must hurt more: not where losses can be negative.
    is_monotone: bool = True

    @abstractmethod
    def metric(self) -> AbstractMetric:
        """Return the metric under test."""

    def test_scores_are_finite_where_asked_for_and_absent_elsewhere(self, tmp_path: Path) -> None:
        for case in _CASES:
            traced = _traced(case)
            offered = {name: ("w4", "w2") if place % 2 else () for place, name in _numbered(traced)}
            table = self._table(case, tmp_path, offered=offered)
            for place, _ in _numbered(traced):
                asked = np.array(
                    [
                        name == "fp32" or (place % 2 == 1 and name in ("w4", "w2"))
                        for name in _FORMATS
                    ]
                )
                assert (np.isfinite(table.loss[place]) == asked).all()
                assert (np.isfinite(table.stderr[place]) == asked).all()

    def test_the_reference_scores_nothing(self, tmp_path: Path) -> None:
        for case in _CASES:
            table = self._table(case, tmp_path)
            assert (table.loss[:, _FORMATS.index("fp32")] == 0).all()
            assert (table.stderr[:, _FORMATS.index("fp32")] == 0).all()

    def test_the_same_seed_gives_the_same_table(self, tmp_path: Path) -> None:
        for case in _CASES:
            first, second = (self._table(case, tmp_path, seed=3) for _ in range(2))
            np.testing.assert_array_equal(first.loss, second.loss)
            np.testing.assert_array_equal(first.stderr, second.stderr)

    def test_the_cut_into_batches_does_not_matter(self, tmp_path: Path) -> None:
        for case in _CASES:
            whole, cut = (self._table(case, tmp_path, batch_size=size) for size in (_SAMPLES, 2))
            assert whole.samples == cut.samples
            largest = np.nanmax(np.abs(whole.loss))
            np.testing.assert_allclose(
                cut.loss, whole.loss, rtol=self.split_tolerance, atol=1e-7 * largest
            )
            np.testing.assert_allclose(
                cut.stderr, whole.stderr, rtol=self.split_tolerance, atol=1e-7 * largest
            )

    def test_a_memory_limit_changes_rounding_only(self, tmp_path: Path) -> None:
        for case in _WITH_MIXED_LAYOUTS:
            whole, tight = (
                self._table(case, tmp_path, memory_limit_bytes=limit) for limit in (None, 10_000)
            )
            largest = np.nanmax(np.abs(whole.loss))
            np.testing.assert_allclose(
                tight.loss, whole.loss, rtol=self.split_tolerance, atol=1e-7 * largest
            )

    def test_shards_of_layers_merge_to_the_same_bits(self, tmp_path: Path) -> None:
        for case in _WITH_MIXED_LAYOUTS:
            whole = self._table(case, tmp_path)
            names = _traced(case).graph.names
            every = {name: _taken(whole, place) for place, name in enumerate(names)}
            shards = [
                self._table(case, tmp_path, offered={name: every[name] for name in part})
                for part in (names[::2], names[1::2])
            ]
            again = merged(shards)
            np.testing.assert_array_equal(again.loss, whole.loss)
            np.testing.assert_array_equal(again.stderr, whole.stderr)
            assert (again.numbers is None) == (whole.numbers is None)
            if again.numbers is not None:
                np.testing.assert_array_equal(again.numbers, whole.numbers)

    def test_the_cache_changes_no_bit(self, tmp_path: Path) -> None:
        for case in _CASES:
            plain = self._table(case, tmp_path)
            store = Cache(folder=tmp_path / "cache")
            cold, warm = (self._table(case, tmp_path, cache=store) for _ in range(2))
            for table in (cold, warm):
                np.testing.assert_array_equal(table.loss, plain.loss)
                np.testing.assert_array_equal(table.stderr, plain.stderr)

    def test_products_are_measured_or_left_at_the_base(self, tmp_path: Path) -> None:
        """Formats of their own have a finite score everywhere or nowhere; weights none."""
        traced = trace_model(*networks.transformer(), has_products=True)
        data = read_data(
            [_batch("transformer", labelled=self.labelled)],
            input_names=traced.input_names,
            batch_size=_SAMPLES,
            folder=tmp_path,
        )
        table = self.metric().measure(
            traced,
            task=TASKS["embedding"],
            data=data,
            formats=("fp32", "a8", "w8"),
            quantizers=observe_ranges(traced, data, method="minmax"),
        )
        products = np.array([is_product_name(name) for name in table.layers])
        assert products.sum() == 2  # noqa: PLR2004 - of one attention
        finite = np.isfinite(table.loss[products])
        assert (finite == [True, self.metric().measures_products, False]).all()
        if self.metric().measures_products:
            assert (table.loss[products, 1] != 0).all()

    def test_fewer_bits_hurt_more_over_all_layers(self, tmp_path: Path) -> None:
        """Single layers need not be monotone; from 8 to 2 bits their sum is."""
        for case in _CASES if self.is_monotone else ():
            total = np.nansum(self._table(case, tmp_path).loss, axis=0)
            assert total[_FORMATS.index("w8")] < total[_FORMATS.index("w2")]

    def _table(
        self,
        case: str,
        folder: Path,
        *,
        batch_size: int = 3,
        **arguments: Any,  # noqa: ANN401 - of `measure`
    ) -> SensitivityTable:
        traced, task = _traced(case), _CASES[case][1]
        batch = _batch(case, labelled=self.labelled)
        cuts = range(0, _SAMPLES, batch_size)
        data = read_data(
            [{name: each[cut : cut + batch_size] for name, each in batch.items()} for cut in cuts],
            input_names=traced.input_names,
            batch_size=batch_size,
            folder=folder / case,
        )
        return self.metric().measure(
            traced, task=task, data=data, formats=_FORMATS, quantizers=_ranges(case), **arguments
        )


def _halved(raw: Tensor, batch: Batch) -> Tensor:  # noqa: ARG001 - a task's callable
    return raw / 2


_CASES: Mapping[str, tuple[networks.Network, AbstractTask]] = {
    "forms": (networks.forms, TASKS["causal_lm"]),
    "convolutions": (networks.convolutions, TASKS["classification"]),
    "transformer": (networks.transformer, TASKS["embedding"]),
    "wrapped": (networks.wrapped, CallableTask(function=_halved)),
}
# Frames of images, token-major rows, masks: enough for what depends on the layout.
_WITH_MIXED_LAYOUTS = ("convolutions", "transformer")


@cache
def _traced(case: str) -> TracedModel:
    return trace_model(*_CASES[case][0]())


@cache
def _ranges(case: str) -> dict[str, ActivationQuantizer]:
    """Return quantisers of the whole data, which is in one batch."""
    traced = _traced(case)
    with TemporaryDirectory() as folder:
        data = read_data(
            [_batch(case, labelled=False)],
            input_names=traced.input_names,
            batch_size=_SAMPLES,
            folder=Path(folder),
        )
        return observe_ranges(traced, data, method="minmax")


def _numbered(traced: TracedModel) -> list[tuple[int, str]]:
    return list(enumerate(traced.graph.names))


def _taken(table: SensitivityTable, row: int) -> tuple[str, ...]:
    """Return the formats that a layer can take, less the reference."""
    finite = zip(table.formats, np.isfinite(table.loss[row]), strict=True)
    return tuple(name for name, known in finite if known and name != "fp32")


def _batch(case: str, *, labelled: bool) -> dict[str, Tensor]:
    traced, task = _traced(case), _CASES[case][1]
    generator = torch.Generator().manual_seed(7)
    batch = {
        name: _more(value, generator=generator, is_mask=name.endswith("mask"))
        for name, value in traced.example.items()
    }
    if not labelled:
        return batch
    outputs = task.outputs(run(traced, batch), batch)
    classes = outputs.shape[-1]
    if task.has_logits:
        return batch | {"label": torch.randint(0, classes, outputs.shape[:-1], generator=generator)}
    return batch | {"label": outputs + torch.randn(outputs.shape, generator=generator)}


def _more(example: Tensor, *, generator: torch.Generator, is_mask: bool) -> Tensor:
    """Return other samples of the example's shape; masks keep each sample's first tokens."""
    shape = (_SAMPLES, *example.shape[1:])
    if example.is_floating_point():
        return torch.randn(shape, generator=generator)
    if is_mask:
        lengths = torch.randint(2, shape[1] + 1, (_SAMPLES, 1), generator=generator)
        return (torch.arange(shape[1])[None] < lengths).long()
    return torch.randint(0, int(example.max()) + 1, shape, generator=generator)
