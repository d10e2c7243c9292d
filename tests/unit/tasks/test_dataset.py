"""Laws of stored data."""

import logging
from pathlib import Path

import pytest
import torch

from mpsearch.errors import DataError
from mpsearch.tasks import Dataset, read_data


def _read(folder: Path, *, samples: int = 10, batch_size: int = 4, offset: float = 0.0) -> Dataset:
    values = torch.arange(samples * 2, dtype=torch.float32).reshape(samples, 2) + offset
    return read_data(
        {"x": values, "label": torch.arange(samples)},
        input_names=("x",),
        batch_size=batch_size,
        folder=folder,
    )


def _labels(data: Dataset) -> list[int]:
    return [int(label) for batch in data for label in batch["label"]]


def test_iterating_twice_gives_the_same_and_counts_agree(tmp_path: Path) -> None:
    data = _read(tmp_path)
    assert _labels(data) == _labels(data) == list(range(10))
    assert (data.samples, len(data)) == (10, 3)
    assert [len(batch["x"]) for batch in data] == [4, 4, 2]


def test_the_fingerprint_is_that_of_the_content(tmp_path: Path) -> None:
    first, again = _read(tmp_path / "a"), _read(tmp_path / "b")
    assert first.fingerprint == again.fingerprint
    others = [
        _read(tmp_path, offset=1e-3),
        _read(tmp_path, samples=9),
        _read(tmp_path, batch_size=5),
    ]
    assert len({first.fingerprint, *(other.fingerprint for other in others)}) == 4


def test_the_same_content_is_kept_once_and_nothing_else_is_left(tmp_path: Path) -> None:
    assert _read(tmp_path).folder == _read(tmp_path).folder
    assert [path.name for path in tmp_path.iterdir()] == [_read(tmp_path).fingerprint]


def test_a_split_keeps_the_last_samples_for_validation(tmp_path: Path) -> None:
    fitting, checking = _read(tmp_path).split(0.3)
    assert _labels(fitting) == list(range(7))
    assert _labels(checking) == [7, 8, 9]
    assert (fitting.samples, checking.samples) == (7, 3)
    prints = {_read(tmp_path).fingerprint, fitting.fingerprint, checking.fingerprint}
    assert len(prints) == 3


def test_parts_can_be_split_and_cut_again(tmp_path: Path) -> None:
    fitting, _ = _read(tmp_path).split(0.3)
    first, last = fitting.split(0.5)
    assert (_labels(first), _labels(last)) == ([0, 1, 2], [3, 4, 5, 6])
    assert _labels(last.take(3)) == [3, 4, 5]
    assert fitting.take(100) is fitting
    _, tail = _read(tmp_path).split(0.5)
    assert _labels(tail.split(0.6)[1]) == [7, 8, 9]


@pytest.mark.parametrize("share", [0.0, 1.0, 1.5])
def test_a_split_with_an_empty_side_is_refused(tmp_path: Path, share: float) -> None:
    with pytest.raises(DataError, match="cannot be split"):
        _read(tmp_path).split(share)


def test_taking_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at least 1"):
        _read(tmp_path).take(0)


def test_a_damaged_copy_is_read_again_and_said_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = _read(tmp_path)
    (data.folder / data.batches[0].file).write_bytes(b"damaged")
    with pytest.raises(DataError, match="Read the data again"):
        _labels(data)
    with caplog.at_level(logging.WARNING):
        assert _labels(_read(tmp_path)) == list(range(10))
    assert "is damaged; it was read again" in caplog.text


def test_a_reader_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    batches = [{"x": torch.ones(2, 2)}, {"x": torch.full((2, 2), torch.nan)}]
    with pytest.raises(DataError, match="NaN"):
        read_data(batches, input_names=("x",), batch_size=2, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []
