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
from mpsearch.tasks import TASKS, AbstractTask, Batch, CallableTask, Dataset, read_data
from mpsearch.testing import networks
from mpsearch.tracing import TracedModel, trace_model

_FORMATS = ("fp32", "bf16", "w8a8", "w8", "w4", "w2")
_SAMPLES = 6
_BATCH = 3


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

    def test_scores_are_finite_where_asked_for_and_absent_elsewhere(self) -> None:
        for case in _CASES:
            traced = _traced(case)
            offered = {name: ("w4", "w2") if place % 2 else () for place, name in _numbered(traced)}
            table = self._table(case, offered=offered)
            for place, _ in _numbered(traced):
                asked = np.array(
                    [
                        name == "fp32" or (place % 2 == 1 and name in ("w4", "w2"))
                        for name in _FORMATS
                    ]
                )
                assert (np.isfinite(table.loss[place]) == asked).all()
                assert (np.isfinite(table.stderr[place]) == asked).all()

    def test_the_reference_scores_nothing(self) -> None:
        for case in _CASES:
            table = self._plain(case)
            assert (table.loss[:, _FORMATS.index("fp32")] == 0).all()
            assert (table.stderr[:, _FORMATS.index("fp32")] == 0).all()

    def test_the_same_seed_gives_the_same_table(self) -> None:
        for case in _CASES:
            first, second = self._plain(case), self._table(case)
            np.testing.assert_array_equal(first.loss, second.loss)
            np.testing.assert_array_equal(first.stderr, second.stderr)

    def test_the_cut_into_batches_does_not_matter(self) -> None:
        """Batches of four and two give what two of three give."""
        for case in _CASES:
            whole, cut = self._plain(case), self._table(case, batch_size=4)
            assert whole.samples == cut.samples
            largest = np.nanmax(np.abs(whole.loss))
            np.testing.assert_allclose(
                cut.loss, whole.loss, rtol=self.split_tolerance, atol=1e-7 * largest
            )
            np.testing.assert_allclose(
                cut.stderr, whole.stderr, rtol=self.split_tolerance, atol=1e-7 * largest
            )

    def test_a_memory_limit_changes_rounding_only(self) -> None:
        for case in _WITH_MIXED_LAYOUTS:
            whole, tight = self._plain(case), self._table(case, memory_limit_bytes=10_000)
            largest = np.nanmax(np.abs(whole.loss))
            np.testing.assert_allclose(
                tight.loss, whole.loss, rtol=self.split_tolerance, atol=1e-7 * largest
            )

    def test_shards_of_layers_merge_to_the_same_bits(self) -> None:
        for case in _WITH_MIXED_LAYOUTS:
            whole = self._plain(case)
            names = _traced(case).graph.names
            every = {name: _taken(whole, place) for place, name in enumerate(names)}
            shards = [
                self._table(case, offered={name: every[name] for name in part})
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
            plain = self._plain(case)
            store = Cache(folder=tmp_path / "cache")
            cold, warm = (self._table(case, cache=store) for _ in range(2))
            for table in (cold, warm):
                np.testing.assert_array_equal(table.loss, plain.loss)
                np.testing.assert_array_equal(table.stderr, plain.stderr)

    def test_products_are_measured_or_left_at_the_base(self, tmp_path: Path) -> None:
        """Formats of their own have a finite score everywhere or nowhere; weights none."""
        traced = _with_products()
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

    def test_fewer_bits_hurt_more_over_all_layers(self) -> None:
        """Single layers need not be monotone; from 8 to 2 bits their sum is."""
        for case in _CASES if self.is_monotone else ():
            total = np.nansum(self._plain(case).loss, axis=0)
            assert total[_FORMATS.index("w8")] < total[_FORMATS.index("w2")]

    def _plain(self, case: str) -> SensitivityTable:
        """Return the table that others are compared with, measured once for each suite."""
        return _plain_of(type(self), case)

    def _table(
        self,
        case: str,
        *,
        batch_size: int = _BATCH,
        **arguments: Any,  # noqa: ANN401 - of `measure`
    ) -> SensitivityTable:
        return self.metric().measure(
            _traced(case),
            task=_CASES[case][1],
            data=_data(case, labelled=self.labelled, batch_size=batch_size),
            formats=_FORMATS,
            quantizers=_ranges(case),
            **arguments,
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
def _with_products() -> TracedModel:
    return trace_model(*networks.transformer(), has_products=True)


@cache
def _plain_of(suite: type[MetricLaws], case: str) -> SensitivityTable:
    table = suite()._table(case)  # noqa: SLF001 - of the suites here
    for each in (table.loss, table.stderr):
        each.flags.writeable = False  # one test cannot change what another compares with
    return table


@cache
def _data(case: str, *, labelled: bool, batch_size: int) -> Dataset:
    """Return the data of a case in batches, on disk until the process ends."""
    batch = _batch(case, labelled=labelled)
    return read_data(
        [
            {name: each[cut : cut + batch_size] for name, each in batch.items()}
            for cut in range(0, _SAMPLES, batch_size)
        ],
        input_names=_traced(case).input_names,
        batch_size=batch_size,
        folder=Path(_folder().name) / f"{case}-{labelled}-{batch_size}",
    )


@cache
def _folder() -> "TemporaryDirectory[str]":
    return TemporaryDirectory()


@cache
def _ranges(case: str) -> dict[str, ActivationQuantizer]:
    """Return quantisers of the whole data, which is in one batch."""
    data = _data(case, labelled=False, batch_size=_SAMPLES)
    return observe_ranges(_traced(case), data, method="minmax")


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
