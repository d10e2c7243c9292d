"""Laws of a bucket, on a folder and on a server that speaks S3."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from moto.server import ThreadedMotoServer

from mpsearch.errors import AbsentError, DataError, StorageError, UsageError
from mpsearch.jobs.blobs import BlobStore, blob_store
from mpsearch.jobs.bucket import Bucket
from mpsearch.jobs.data_folder import DataFolder


def name_of(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    httpx2.put(f"http://{host}:{port}/uploads").raise_for_status()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "id")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_REGION", "us-east-1")
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ALLOW_HTTP", "true")
        yield "s3://uploads"
    server.stop()


@pytest.fixture(params=["s3", "file"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "file":
        return (tmp_path / "bucket").as_uri()
    return f"{request.getfixturevalue('s3')}/{tmp_path.name}"


def store(url: str, folder: Path) -> BlobStore:
    return BlobStore(folder=folder, bucket=Bucket(url, patience_seconds=1.0))


def uploaded(blobs: BlobStore, content: bytes) -> str:
    with blobs.receiving(name_of(content)) as writer:
        writer.write(content)
    return name_of(content)


@pytest.mark.parametrize("size", [0, 1, 12 * 2**20])
def test_what_one_host_takes_in_another_has(url: str, tmp_path: Path, size: int) -> None:
    content = bytes(size)
    name = uploaded(store(url, tmp_path / "here"), content)
    there = store(url, tmp_path / "there")
    assert there.holds(name)
    assert there.path(name).read_bytes() == content


def test_what_was_brought_is_not_asked_for_again(url: str, tmp_path: Path) -> None:
    name = uploaded(store(url, tmp_path / "here"), b"abc")
    there = store(url, tmp_path / "there")
    path = there.path(name)
    alone = BlobStore(folder=there.folder)
    assert alone.path(name) == path


def test_what_was_here_before_the_bucket_was_is_sent_at_its_next_use(
    url: str, tmp_path: Path
) -> None:
    name = uploaded(BlobStore(folder=tmp_path / "here"), b"abc")
    assert not store(url, tmp_path / "there").holds(name)
    assert store(url, tmp_path / "here").holds(name)
    assert store(url, tmp_path / "there").path(name).read_bytes() == b"abc"
    # It is known to be there from then on, in that bucket and in no other.
    away = store(url, tmp_path / "here")
    away.bucket.put = lambda *_: pytest.fail("sent twice")  # type: ignore[union-attr, method-assign]  # to see it
    away.bucket.holds = lambda _: pytest.fail("asked again")  # type: ignore[union-attr, method-assign]  # likewise
    assert away.holds(name)
    other = f"{url}-other"
    assert store(other, tmp_path / "here").holds(name)
    assert store(other, tmp_path / "elsewhere").holds(name)


def test_what_was_taken_in_or_brought_needs_no_bucket_to_be_known(tmp_path: Path) -> None:
    url = (tmp_path / "bucket").as_uri()
    name = uploaded(store(url, tmp_path / "here"), b"abc")
    store(url, tmp_path / "there").path(name)
    for folder in ("here", "there"):
        blobs = store(url, tmp_path / folder)
        blobs.bucket.holds = lambda _: pytest.fail("asked")  # type: ignore[union-attr, method-assign]  # to see it
        assert blobs.holds(name)


def test_what_is_nowhere_is_told(url: str, tmp_path: Path) -> None:
    blobs = store(url, tmp_path / "here")
    assert not blobs.holds(name_of(b"x"))
    with pytest.raises(AbsentError, match="not here"):
        blobs.path(name_of(b"x"))
    assert not [path for path in blobs.folder.rglob("*") if path.is_file()]


def test_what_is_not_as_named_reaches_no_bucket(url: str, tmp_path: Path) -> None:
    blobs, name = store(url, tmp_path / "here"), name_of(b"abc")
    with pytest.raises(DataError, match="hash to"), blobs.receiving(name) as writer:
        writer.write(b"abd")
    assert not store(url, tmp_path / "there").holds(name)


def test_an_object_that_was_changed_in_the_bucket_is_not_used(url: str, tmp_path: Path) -> None:
    name = name_of(b"abc")
    changed = tmp_path / "changed"
    changed.write_bytes(b"abd")
    digest = name.removeprefix("sha256:")
    Bucket(url).put(f"{digest[:2]}/{digest}", changed)
    with pytest.raises(DataError, match="hash to"):
        store(url, tmp_path / "here").path(name)
    assert not BlobStore(folder=tmp_path / "here").holds(name)


def test_a_bucket_that_is_not_there_is_told_and_nothing_is_kept(s3: str, tmp_path: Path) -> None:
    blobs = store(s3.replace("uploads", "nowhere"), tmp_path / "here")
    with pytest.raises(StorageError, match="nowhere"):
        uploaded(blobs, b"abc")
    assert not BlobStore(folder=blobs.folder).holds(name_of(b"abc"))


def test_a_server_that_does_not_answer_is_told(
    monkeypatch: pytest.MonkeyPatch, s3: str, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    blobs = store(s3, tmp_path / "here")
    for ask in (blobs.holds, blobs.path):
        with pytest.raises(StorageError, match="Try again later"):
            ask(name_of(b"abc"))


@pytest.mark.parametrize("wrong", ["ftp://host/x", "s3://", "nonsense", "/srv/x", "memory:///"])
def test_other_addresses_are_refused(wrong: str) -> None:
    with pytest.raises(UsageError, match="MPS_BLOBS_URL"):
        Bucket(wrong)


def test_a_data_folder_says_where_uploads_are_kept(tmp_path: Path) -> None:
    assert blob_store(DataFolder(path=tmp_path), patience_seconds=1.0).bucket is None
    kept = DataFolder(path=tmp_path, bucket=(tmp_path / "bucket").as_uri())
    name = uploaded(blob_store(kept, patience_seconds=1.0), b"abc")
    assert len(list((tmp_path / "bucket").rglob(name.removeprefix("sha256:")))) == 1
