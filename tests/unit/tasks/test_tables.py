"""Datasets on disk: what `datasets` saves, parquet, and everything that is wrong with them."""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from mpsearch.errors import DataError
from mpsearch.tasks import Dataset, read_data

pa = pytest.importorskip("pyarrow", reason="needs the extra 'datasets'")


def save(folder: Path, *parts: Mapping[str, Sequence[Any]]) -> Path:
    """Write columns as `Dataset.save_to_disk` of datasets 2 to 4 does: streams and their list."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"data-{at:05d}-of-{len(parts):05d}.arrow" for at in range(len(parts))]
    for name, columns in zip(names, parts, strict=True):
        table = pa.table(dict(columns))
        with (
            pa.OSFile(str(folder / name), "wb") as sink,
            pa.ipc.new_stream(sink, table.schema) as writer,
        ):
            writer.write_table(table)
    state = {"_data_files": [{"filename": name} for name in names], "_fingerprint": "x"}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text(json.dumps({"features": {}}))
    return folder


def _read(source: Path, *names: str, folder: Path, **more: Any) -> Dataset:  # noqa: ANN401 - as read_data takes it
    return read_data(source, input_names=names, batch_size=4, folder=folder / "data", **more)


_IDS: Mapping[str, Sequence[Any]] = {
    "input_ids": [[5, 6, 7], [8], [9, 3]],
    "label": [1, 0, 1],
    "title": ["a", "b", "c"],
}


def test_a_saved_dataset_gives_inputs_and_labels(tmp_path: Path) -> None:
    (batch,) = _read(save(tmp_path / "d", _IDS), "input_ids", folder=tmp_path)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 0, 0], [9, 3, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0], [1, 1, 0]]
    assert batch["label"].tolist() == [1, 0, 1]
    assert "title" not in batch


def test_files_come_in_the_order_of_the_list_and_the_limit_holds(tmp_path: Path) -> None:
    parts = [{"x": [[float(at), 0.0], [at + 0.5, 1.0]]} for at in range(3)]
    data = _read(save(tmp_path / "d", *parts), "x", folder=tmp_path, limit=5)
    values = torch.cat([batch["x"][:, 0] for batch in data])
    assert values.tolist() == [0.0, 0.5, 1.0, 1.5, 2.0]


@pytest.mark.parametrize("is_folder", [True, False])
def test_parquet_is_read_alike(tmp_path: Path, *, is_folder: bool) -> None:
    from pyarrow import parquet

    folder = tmp_path / "p"
    folder.mkdir()
    parquet.write_table(pa.table(_IDS), folder / "train.parquet")
    source = folder if is_folder else folder / "train.parquet"
    (batch,) = _read(source, "input_ids", folder=tmp_path)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 0, 0], [9, 3, 0]]


class _Letters:
    """A tokeniser of letters, as far as reading asks one."""

    def encode(self, text: str) -> Any:  # noqa: ANN401 - as the library's
        ids = [ord(each) for each in text]
        return type("Encoding", (), {"ids": ids, "attention_mask": [1] * len(ids)})()


def test_the_only_column_of_strings_is_the_text(tmp_path: Path) -> None:
    source = save(tmp_path / "d", {"sentence": ["ab", "c"], "label": [0, 1]})
    (batch,) = _read(source, "input_ids", "attention_mask", folder=tmp_path, tokenizer=_Letters())
    assert batch["input_ids"].tolist() == [[97, 98], [99, 0]]
    assert batch["label"].tolist() == [0, 1]


def test_pictures_come_as_the_model_wants_them(tmp_path: Path) -> None:
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (20, 10), (255, 0, 0)).save(buffer, "PNG")
    pictures = [{"bytes": buffer.getvalue(), "path": "/etc/passwd"}] * 2
    source = save(tmp_path / "d", {"image": pictures, "label": [3, 4]})
    model = tmp_path / "model"
    model.mkdir()
    settings = {
        "image_processor_type": "ViTImageProcessor",
        "size": {"height": 8, "width": 8},
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    (model / "preprocessor_config.json").write_text(json.dumps(settings))
    (batch,) = _read(source, "pixel_values", folder=tmp_path, model=model)
    assert batch["pixel_values"].shape == (2, 3, 8, 8)
    torch.testing.assert_close(batch["pixel_values"][0, :, 0, 0], torch.tensor([1.0, -1.0, -1.0]))
    assert batch["label"].tolist() == [3, 4]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"title": ["a"], "body": ["b"], "label": [1]}, r"2 columns of text.*called 'text'"),
        ({"label": [1]}, r"but not \['input_ids'\]"),
        ({"tokens": [[1]], "size": [2]}, r"but not \['input_ids'\]"),
        ({"input_ids": []}, "has no rows"),
        ({"image": [{"bytes": b"no picture", "path": ""}]}, "a picture that cannot be read"),
        ({"image": [{"bytes": None, "path": "/etc/passwd"}]}, "a picture that cannot be read"),
    ],
)
def test_columns_that_do_not_fit_are_told(
    tmp_path: Path, columns: Mapping[str, Sequence[Any]], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        _read(save(tmp_path / "d", columns), "input_ids", folder=tmp_path)


def test_a_dataset_of_splits_names_them(tmp_path: Path) -> None:
    save(tmp_path / "d" / "train", _IDS)
    (tmp_path / "d" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    with pytest.raises(DataError, match=r"has the splits \['train', 'test'\]. .*train'"):
        _read(tmp_path / "d", "input_ids", folder=tmp_path)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("data-00000-of-00001.arrow", b"ARROW1" + b"\0" * 50, "cannot be read"),
        ("data-00000-of-00001.arrow", b"\x80\x04pickle", "cannot be read"),
        (
            "state.json",
            b'{"_data_files": [{"filename": "../secret/data-00000-of-00001.arrow"}]}',
            "does not hold",
        ),
        ("state.json", b'{"_data_files": [{"filename": "gone.arrow"}]}', "does not hold"),
        ("state.json", b"[]", "holds a list"),
        ("state.json", b"\xff", "cannot be read"),
        ("state.json", b"{}", "has no rows"),
    ],
)
def test_damaged_datasets_are_told(tmp_path: Path, file: str, content: bytes, message: str) -> None:
    folder = save(tmp_path / "d", _IDS)
    save(tmp_path / "secret", _IDS)
    (folder / file).write_bytes(content)
    with pytest.raises(DataError, match=message):
        _read(folder, "input_ids", folder=tmp_path)


def test_code_in_the_folder_is_never_run(tmp_path: Path) -> None:
    folder = save(tmp_path / "d", _IDS)
    (folder / "d.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    _read(folder, "input_ids", folder=tmp_path)
    assert not (tmp_path / "ran").exists()
