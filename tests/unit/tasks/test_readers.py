"""What can be read, and one clear error for each thing that cannot."""

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from mpsearch.errors import DataError
from mpsearch.tasks import Dataset, check_fits, read_data


def _read(source: object, folder: Path, **options: Any) -> Dataset:  # noqa: ANN401 - passed on
    settings = {"input_names": ("x",), "batch_size": 4, **options}
    return read_data(source, folder=folder, **settings)


def _all(data: Dataset, name: str) -> torch.Tensor:
    return torch.cat([batch[name] for batch in data])


@pytest.fixture
def tokenizer_file(tmp_path: Path) -> Path:
    words = {word: place for place, word in enumerate(["[UNK]", "a", "b", "c"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))  # noqa: S106 - no password
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.enable_padding(length=16)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


_VALUES = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
_LABELS = torch.arange(6)


def _generator() -> Iterator[torch.Tensor]:
    yield from torch.split(_VALUES, 2)


@pytest.mark.parametrize(
    "source",
    [
        _VALUES,
        _VALUES.double().numpy(),
        {"x": _VALUES},
        {"anything": _VALUES, "labels": _LABELS},
        list(torch.split(_VALUES, 4)),
        [(_VALUES[:5], _LABELS[:5]), (_VALUES[5:], _LABELS[5:])],
        [{"x": _VALUES}],
        _generator(),
        torch.utils.data.DataLoader(torch.utils.data.TensorDataset(_VALUES, _LABELS), batch_size=4),
        torch.utils.data.TensorDataset(_VALUES, _LABELS),
        torch.utils.data.DataLoader(torch.utils.data.TensorDataset(_VALUES), batch_size=3),
    ],
)
def test_the_same_numbers_come_back_from_every_kind_of_source(
    source: object, tmp_path: Path
) -> None:
    data = _read(source, tmp_path)
    assert data.samples == 6
    torch.testing.assert_close(_all(data, "x"), _VALUES)


def test_a_file_of_arrays_is_cut_into_batches_and_limited(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=np.arange(20.0).reshape(10, 2), label=np.arange(10))
    data = _read(tmp_path / "data.npz", tmp_path / "kept", limit=7)
    assert [len(batch["x"]) for batch in data] == [4, 3]
    assert _all(data, "label").tolist() == list(range(7))
    assert _all(data, "x").dtype is torch.float32
    assert _read(data, tmp_path, limit=3).samples == 3


def test_batches_are_limited_too(tmp_path: Path) -> None:
    data = _read([_VALUES, _VALUES], tmp_path, limit=8)
    assert [len(batch["x"]) for batch in data] == [6, 2]


def test_whole_numbers_become_int64_and_bytes_stay(tmp_path: Path) -> None:
    arrays = {"x": np.zeros((2, 1), np.uint16), "image": np.zeros((2, 1), np.uint8)}
    data = _read(arrays, tmp_path)
    assert _all(data, "x").dtype is torch.int64
    assert _all(data, "image").dtype is torch.uint8


def test_texts_are_tokenised_padded_in_buckets_and_keep_their_labels(
    tmp_path: Path, tokenizer_file: Path
) -> None:
    texts = ["a", "a b c a b c", "b", "a b", "c a b c a", "c c"]
    lines = [json.dumps({"text": text, "label": place}) for place, text in enumerate(texts)]
    (tmp_path / "data.jsonl").write_text("\n".join(lines) + "\n\n")
    options: dict[str, Any] = {
        "input_names": ("input_ids", "attention_mask", "token_type_ids"),
        "batch_size": 2,
        "tokenizer": tokenizer_file,
    }
    data = _read(tmp_path / "data.jsonl", tmp_path / "kept", **options)
    batches = list(data)
    # Buckets by length are {a, b}, {a b, c c}, {the two long ones}, ordered by first sample.
    assert [batch["label"].tolist() for batch in batches] == [[0, 2], [1, 4], [3, 5]]
    assert batches[1]["input_ids"].tolist() == [[1, 2, 3, 1, 2, 3], [3, 1, 2, 3, 1, 0]]
    assert batches[1]["attention_mask"].tolist() == [[1] * 6, [1] * 5 + [0]]
    assert not batches[1]["token_type_ids"].any()
    fitting, checking = data.split(0.3)
    assert sorted(_all(checking, "label").tolist()) == [4, 5]
    assert sorted(_all(fitting, "label").tolist()) == [0, 1, 2, 3]
    plain = _read(texts, tmp_path / "kept", **options)
    assert torch.equal(next(iter(plain))["input_ids"], batches[0]["input_ids"])


def test_token_lists_are_padded_and_get_a_mask(tmp_path: Path) -> None:
    records = [
        {"input_ids": [5, 6, 7], "labels": [6, 7, 8]},
        {"input_ids": [5], "labels": [9]},
    ]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, records)))
    (batch,) = _read(tmp_path / "data.jsonl", tmp_path / "kept", input_names=("input_ids",))
    assert batch["input_ids"].tolist() == [[5, 6, 7], [5, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    # The value that torch's losses ignore.
    assert batch["labels"].tolist() == [[6, 7, 8], [9, -100, -100]]


def test_lines_of_arrays_are_stacked(tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_text('{"x": [[1, 2.5]], "y": 1}\n{"x": [[3, 4]], "y": 0}\n')
    (batch,) = _read(tmp_path / "data.jsonl", tmp_path / "kept")
    assert batch["x"].tolist() == [[[1.0, 2.5]], [[3.0, 4.0]]]
    assert batch["y"].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ([], "no sample"),
        (iter(()), "no sample"),
        (torch.zeros(0, 3), "no sample"),
        (torch.tensor([[1.0, torch.nan]]), r"'x' holds 1 numbers of 2 that are NaN"),
        ({"x": np.ones((2, 1)), "label": np.ones(3)}, r"'label' has the shape \(3,\)"),
        ({"x": np.array([[1], [1, 2]], dtype=object)}, "Expected numbers in a plain array"),
        ({"x": np.array(["word"])}, "Expected numbers"),
        ({"x": torch.ones(2, dtype=torch.complex64)}, "complex"),
        ({"other": np.ones(2), "another": np.ones(2)}, r"keys \['another', 'other'\], but not 'x'"),
        ([(torch.ones(1), torch.ones(1), torch.ones(1))], "has 3 members"),
        ([(torch.ones(3), 1)], "batches instead of single samples"),
        (3, "type 'int' cannot be read"),
        (["some text"], "without a tokenizer"),
        ([{"x": [[1], [1, 2]]}], "ragged"),
    ],
)
def test_data_that_cannot_be_read_says_why(source: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        _read(source, tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("data.npz", b"PK no archive", "cannot be read"),
        ("data.npz", b"", "cannot be read"),
        ("data.csv", b"1,2", "Expected .npz, .jsonl or a folder"),
        ("data.jsonl", b"", "no sample"),
        ("data.jsonl", b'{"x": [1]}\n{"x": [1', "line 2 is no JSON"),
        ("data.jsonl", b"[1, 2]", "holds a list"),
        ("data.jsonl", b'{"x": [[1], [2, 3]]}', "'x' of sample 0 is ragged"),
        (
            "data.jsonl",
            b'{"x": [1]}\n{"x": [1, 2]}',
            r"'x' is ragged: sample 1 has the shape \(2,\)",
        ),
        ("data.jsonl", b'{"x": [1]}\n{"z": [1]}', "Sample 1 has the keys"),
        ("data.jsonl", b'{"x": null}', "Expected numbers"),
        ("data.jsonl", b'{"x": [NaN]}', "NaN"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(
    name: str, content: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        _read(tmp_path / name, tmp_path / "kept")


def test_pickled_arrays_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="without pickles"):
        _read(tmp_path / "data.npz", tmp_path / "kept")


def test_a_missing_file_and_a_bad_limit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        _read(str(tmp_path / "nothing.npz"), tmp_path)
    with pytest.raises(DataError, match="limit is 0"):
        _read(_VALUES, tmp_path, limit=0)


@pytest.mark.parametrize("text", ["", "   ", 3])
def test_a_text_without_tokens_is_refused(
    text: object, tmp_path: Path, tokenizer_file: Path
) -> None:
    with pytest.raises(DataError, match="Sample 1 has the text"):
        _read(
            [{"text": "a"}, {"text": text}],
            tmp_path,
            input_names=("input_ids",),
            tokenizer=tokenizer_file,
        )


def test_a_file_that_is_no_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(DataError, match=r"Expected a tokenizer\.json"):
        _read(["a"], tmp_path, tokenizer=tmp_path / "tokenizer.json")


@pytest.mark.parametrize(
    ("example", "message"),
    [
        (torch.zeros(1, 4), r"shape \(4, 3\)\. Expected \(any, 4\)"),
        (torch.zeros(1, 3, 1), r"Expected \(any, 3, 1\)"),
        (torch.zeros(1, 9, dtype=torch.long), "Expected torch.int64"),
    ],
)
def test_data_of_another_shape_than_the_example_is_refused(
    example: torch.Tensor, message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        _read(_VALUES, tmp_path, example={"x": example})


def test_lengths_of_tokens_are_free_but_those_of_numbers_are_not(tmp_path: Path) -> None:
    ids = torch.zeros(2, 7, dtype=torch.long)
    data = _read({"x": ids}, tmp_path, example={"x": torch.zeros(1, 3, dtype=torch.long)})
    assert data.samples == 2
    with pytest.raises(DataError, match="not 'mask'"):
        check_fits(data, {"mask": ids})


@pytest.mark.parametrize(
    "line",
    [b"[" * 100_000, '{"text": "é"}'.encode("latin-1"), b'{"text": '],
    ids=["deep", "latin", "cut"],
)
def test_a_line_that_cannot_be_read_is_named(line: bytes, tmp_path: Path) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_bytes(b'{"x": [1.0]}\n' + line + b"\n")
    with pytest.raises(DataError, match=r"line 2.*Mend the line"):
        read_data(file, input_names=("x",), batch_size=2, folder=tmp_path)


@pytest.mark.parametrize("claimed", [2**40, 2**70])
def test_an_array_that_claims_more_than_there_is_is_refused(claimed: int, tmp_path: Path) -> None:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({claimed},), }}"
    length = len(header) + 1
    content = b"\x93NUMPY\x01\x00" + length.to_bytes(2, "little") + header.encode() + b"\n"
    file = tmp_path / "bad.npz"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x.npy", content)
    with pytest.raises(DataError, match=r"bad\.npz"):
        read_data(file, input_names=("x",), batch_size=2, folder=tmp_path)
