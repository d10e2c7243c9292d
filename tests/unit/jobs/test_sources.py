"""Laws of sources: only what lies under a root or was uploaded, and never a pickle."""

import hashlib
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mpsearch.errors import AbsentError, DataError, ModelError
from mpsearch.jobs.blobs import BlobStore
from mpsearch.jobs.request import DataBlob, ModelFiles, RootSource
from mpsearch.jobs.sources import Sources, onnx_name

HEADER = b"{}      "
WEIGHTS = struct.pack("<Q", len(HEADER)) + HEADER


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    root = tmp_path / "root"
    (root / "model").mkdir(parents=True)
    (root / "model" / "config.json").write_text("{}")
    (root / "model" / "model.safetensors").write_bytes(WEIGHTS)
    (root / "data.jsonl").write_text('{"text": "a"}\n')
    np.savez(root / "data.npz", x=np.zeros(3))
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "data.jsonl").write_text("{}\n")
    (root / "way_out").symlink_to(tmp_path / "secret")
    return Sources(roots={"r": root}, blobs=BlobStore(folder=tmp_path / "blobs"))


@pytest.fixture
def upload(sources: Sources) -> Callable[[bytes], str]:
    def put(content: bytes) -> str:
        name = "sha256:" + hashlib.sha256(content).hexdigest()
        assert isinstance(sources.blobs, BlobStore)
        with sources.blobs.receiving(name) as writer:
            writer.write(content)
        return name

    return put


def under(path: str, root: str = "r") -> RootSource:
    return RootSource(root=root, path=path)


def folder(sources: Sources) -> Path:
    return sources.roots["r"]


def test_what_lies_under_a_root_is_found(sources: Sources) -> None:
    root = folder(sources)
    assert sources.model(under("model")) == root / "model"
    assert sources.data(under("model/../data.jsonl")) == (root / "data.jsonl", ".jsonl")
    assert sources.data(under("data.npz")) == (root / "data.npz", ".npz")


@pytest.mark.parametrize(
    "path",
    [
        "../secret/data.jsonl",
        "../secret/nothing.jsonl",
        "way_out/data.jsonl",
        "way_out/nothing.jsonl",
        "/etc/passwd",
        "/etc/nothing",
        "nothing.jsonl",
        "a" * 999,
        "model/../../secret/data.jsonl",
    ],
)
def test_outside_and_absent_are_told_alike(sources: Sources, path: str) -> None:
    expected = f"Root 'r' holds no {path!r}."
    for find in (sources.model, sources.data):
        with pytest.raises(AbsentError) as caught:
            find(under(path))
        assert str(caught.value).startswith(expected)
        rest = str(caught.value).removeprefix(expected)
        assert "secret" not in rest


def test_an_unknown_root_is_told_like_an_absent_path(sources: Sources) -> None:
    with pytest.raises(AbsentError, match="Root 'other' holds no 'model'"):
        sources.model(under("model", root="other"))


ONNX = b"\x08\x0a"  # how the files begin that exporters write: field 1, version 10


def test_an_onnx_file_is_found_by_its_name_or_its_folder(sources: Sources) -> None:
    place = folder(sources) / "net"
    place.mkdir()
    (place / "net.onnx").write_bytes(ONNX)
    (place / "net.onnx.data").write_bytes(b"weights")
    assert sources.model(under("net/net.onnx")) == place / "net.onnx"
    assert sources.model(under("net")) == place / "net.onnx"


def test_an_onnx_file_that_leads_out_of_the_root_is_absent(sources: Sources) -> None:
    secret = folder(sources).parent / "secret" / "net.onnx"
    secret.write_bytes(ONNX)
    (folder(sources) / "net").mkdir()
    (folder(sources) / "net" / "net.onnx").symlink_to(secret)
    for path in ("net", "net/net.onnx"):
        with pytest.raises(AbsentError, match="holds no"):
            sources.model(under(path))


def test_uploads_may_be_one_onnx_file_and_its_weights(
    sources: Sources, upload: Callable[[bytes], str]
) -> None:
    files = {"net.onnx": upload(ONNX), "net.onnx.data": upload(b"weights")}
    found = sources.model(ModelFiles(files=files))
    assert isinstance(found, dict)
    assert onnx_name(found) == "net.onnx"
    two = {"a.onnx": upload(ONNX), "b.onnx": upload(ONNX)}
    with pytest.raises(ModelError, match=r"holds 2 ONNX files, first 'a\.onnx'"):
        sources.model(ModelFiles(files=two))


@pytest.mark.parametrize("content", [b"", pickle.dumps({"a": 1}), b"PK\x03\x04rest"])
def test_what_only_calls_itself_onnx_is_refused(sources: Sources, content: bytes) -> None:
    (folder(sources) / "net.onnx").write_bytes(content)
    with pytest.raises(ModelError, match="no ONNX file by its first bytes"):
        sources.model(under("net.onnx"))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pkl", "net.pt2"])
def test_a_folder_of_pickles_is_refused(sources: Sources, name: str) -> None:
    place = folder(sources) / "pickled"
    place.mkdir()
    (place / "config.json").write_text("{}")
    (place / name).write_bytes(b"unread")
    with pytest.raises(ModelError, match="can run code, and was left unread"):
        sources.model(under("pickled"))


def test_pickled_uploads_are_refused_before_they_are_looked_up(sources: Sources) -> None:
    nowhere = "sha256:" + "0" * 64
    with pytest.raises(ModelError, match="left unread"):
        sources.model(ModelFiles(files={"config.json": nowhere, "model.bin": nowhere}))


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps({"weight": [1.0] * 50}),
        pickle.dumps({"weight": [1.0] * 50}, protocol=0),
        b"PK\x03\x04" + bytes(60),  # what torch.save writes
        b"",
        WEIGHTS[:8],
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 9) + HEADER,
        struct.pack("<Q", 8) + b"[]      ",
    ],
)
def test_a_pickle_with_another_name_is_refused(
    sources: Sources, upload: Callable[[bytes], str], content: bytes
) -> None:
    files = {"config.json": upload(b"{}"), "model.safetensors": upload(content)}
    with pytest.raises(ModelError, match="no safetensors file"):
        sources.model(ModelFiles(files=files))


def test_uploads_are_found_by_their_names(sources: Sources, upload: Callable[[bytes], str]) -> None:
    files = {"config.json": upload(b"{}"), "model.safetensors": upload(WEIGHTS)}
    found = sources.model(ModelFiles(files=files))
    assert isinstance(found, dict)
    assert {name: path.read_bytes() for name, path in found.items()} == {
        "config.json": b"{}",
        "model.safetensors": WEIGHTS,
    }


def test_uploads_that_never_came_are_absent(sources: Sources) -> None:
    digest = "sha256:" + "0" * 64
    with pytest.raises(AbsentError, match="not here"):
        sources.model(ModelFiles(files={"config.json": digest, "model.safetensors": digest}))
    with pytest.raises(AbsentError, match="not here"):
        sources.data(DataBlob(blob=digest, format="npz"))


@pytest.mark.parametrize("format_", ["npz", "jsonl"])
def test_pickled_data_is_refused(
    sources: Sources, upload: Callable[[bytes], str], format_: str
) -> None:
    blob = upload(pickle.dumps([1, 2, 3]))
    with pytest.raises(DataError, match="left unread"):
        sources.data(DataBlob.model_validate({"blob": blob, "format": format_}))


def test_data_of_another_kind_is_refused(sources: Sources) -> None:
    (folder(sources) / "data.csv").write_text("a,b")
    for path in ("data.csv", "model"):
        with pytest.raises(DataError, match="Expected"):
            sources.data(under(path))
