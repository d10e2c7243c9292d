"""Laws of uploads: whole and as named, or not there."""

import hashlib
from pathlib import Path

import pytest

from mpsearch.errors import AbsentError, DataError
from mpsearch.jobs.blobs import BlobStore


def name_of(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(folder=tmp_path / "blobs")


def test_what_went_in_comes_out(blobs: BlobStore) -> None:
    name = name_of(b"abcdef")
    assert not blobs.holds(name)
    with blobs.receiving(name) as writer:
        writer.write(b"abc")
        writer.write(b"def")
        assert not blobs.holds(name)
    assert blobs.path(name).read_bytes() == b"abcdef"
    assert writer.size == 6


def test_an_upload_can_be_repeated(blobs: BlobStore) -> None:
    for _ in range(2):
        with blobs.receiving(name_of(b"x")) as writer:
            writer.write(b"x")
    assert len(files(blobs.folder)) == 1


@pytest.mark.parametrize("sent", [b"", b"abcde", b"abcdef!", b"abcdeg"])
def test_what_is_not_as_named_is_not_kept(blobs: BlobStore, sent: bytes) -> None:
    name = name_of(b"abcdef")
    with pytest.raises(DataError, match="hash to"), blobs.receiving(name) as writer:
        writer.write(sent)
    assert not blobs.holds(name)
    assert files(blobs.folder) == []


def test_an_interrupted_upload_leaves_nothing(blobs: BlobStore) -> None:
    name = name_of(b"abcdef")
    upload = blobs.receiving(name)
    upload.__enter__().write(b"abc")
    assert len(files(blobs.folder)) == 1
    assert not upload.__exit__(ConnectionError, ConnectionError(), None)
    assert files(blobs.folder) == []


def test_what_a_killed_server_left_is_swept(blobs: BlobStore) -> None:
    with blobs.receiving(name_of(b"x")) as writer:
        writer.write(b"x")
    (blobs.folder / ".incoming-abc").write_bytes(b"half")
    assert blobs.sweep() == 1
    assert [path.name for path in files(blobs.folder)] == [name_of(b"x")[7:]]


def test_a_blob_that_is_not_here_is_absent(blobs: BlobStore) -> None:
    with pytest.raises(AbsentError, match="Upload it"):
        blobs.path(name_of(b"x"))
