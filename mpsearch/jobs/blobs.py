"""Uploads by content: hashed while they are written, visible only when whole."""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

from mpsearch.errors import AbsentError, DataError, QuotaError
from mpsearch.jobs.bucket import Bucket
from mpsearch.jobs.data_folder import DataFolder

PREFIX: Final = "sha256:"


@final
class BlobWriter:
    """An upload on its way in; `size` bytes so far."""

    def __init__(self, file: Any, *, most_bytes: int | None) -> None:  # noqa: ANN401 - a binary file of any kind
        self._file = file
        self._hash = hashlib.sha256()
        self._most_bytes = most_bytes
        self.size = 0

    def write(self, chunk: bytes) -> None:
        """Append bytes.

        Raises:
            QuotaError: There are more than may come.
        """
        if self._most_bytes is not None and self.size + len(chunk) > self._most_bytes:
            raise QuotaError(
                f"The upload has more than the {max(self._most_bytes, 0)} bytes that are left of "
                "the quota. Expected no more. Ask the operator for more room."
            )
        self._hash.update(chunk)
        self._file.write(chunk)
        self.size += len(chunk)

    @property
    def name(self) -> str:
        """Return the name of what was written so far."""
        return PREFIX + self._hash.hexdigest()


@final
@dataclass(frozen=True, kw_only=True)
class BlobStore:
    """A folder of uploads, each a read-only file under its digest.

    With a bucket, that is where they are kept; the folder holds what was sent or asked for here.
    Its methods then raise StorageError where the bucket cannot be reached.
    """

    folder: Path
    bucket: Bucket | None = None

    def holds(self, name: str) -> bool:
        """Return whether an upload is here; with a bucket, whether it is there by then.

        A file that was here before the bucket was is sent at this, its first use since.
        """
        is_here = self._path(name).is_file()
        if self.bucket is None:
            return is_here
        if is_here:
            self._send(name, bucket=self.bucket)
        return is_here or self.bucket.holds(_key(name))

    def path(self, name: str) -> Path:
        """Return the file of an upload, brought from the bucket if it has to be.

        Raises:
            AbsentError: It is not here.
            DataError: What the bucket holds is not what the name says.
        """
        path = self._path(name)
        if not path.is_file() and self.bucket is not None:
            self._bring(name, bucket=self.bucket)
        if not path.is_file():
            raise AbsentError(
                f"Blob {name!r} is not here. Expected one that was uploaded. "
                f"Upload it with PUT /v1/blobs/{name}."
            )
        return path

    @contextmanager
    def receiving(self, name: str, *, most_bytes: int | None = None) -> Iterator[BlobWriter]:
        """Take in an upload; on leaving the block it is checked, kept, and becomes visible.

        Raises:
            DataError: What came is not what the name says; nothing is kept.
            QuotaError: More than `most_bytes` came; nothing is kept.
        """
        with self._incoming(name, most_bytes=most_bytes, bucket=self.bucket) as writer:
            yield writer

    def _send(self, name: str, *, bucket: Bucket) -> None:
        mark = self._mark(name, bucket=bucket)
        if mark.exists():
            return
        if not bucket.holds(_key(name)):
            bucket.put(_key(name), self._path(name))
        _touch(mark)

    def _mark(self, name: str, *, bucket: Bucket) -> Path:
        """Return the file that stands for an upload known to be in the bucket."""
        place = hashlib.sha256(bucket.url.encode()).hexdigest()[:16]
        return self.folder / f".kept-{place}" / _key(name)

    def _bring(self, name: str, *, bucket: Bucket) -> None:
        try:
            with self._incoming(name, most_bytes=None, bucket=None) as writer:
                for piece in bucket.pieces(_key(name)):
                    writer.write(piece)
        except FileNotFoundError:
            return

    @contextmanager
    def _incoming(
        self, name: str, *, most_bytes: int | None, bucket: Bucket | None
    ) -> Iterator[BlobWriter]:
        self.folder.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=self.folder, prefix=".incoming-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                writer = BlobWriter(file, most_bytes=most_bytes)
                yield writer
                _check(name, writer=writer)
                file.flush()
                os.fsync(file.fileno())
            if bucket is not None:
                bucket.put(_key(name), Path(temporary))
            # Owner may read, nobody may write: it is named by what it holds.
            Path(temporary).chmod(0o400)
            target = self._path(name)
            target.parent.mkdir(exist_ok=True)
            Path(temporary).replace(target)
            if self.bucket is not None:
                _touch(self._mark(name, bucket=self.bucket))
        finally:
            Path(temporary).unlink(missing_ok=True)

    def sweep(self) -> int:
        """Delete what interrupted uploads left behind; return how many there were."""
        left = list(self.folder.glob(".incoming-*"))
        for path in left:
            path.unlink(missing_ok=True)
        return len(left)

    def _path(self, name: str) -> Path:
        return self.folder / _key(name)


def blob_store(data: DataFolder, *, patience_seconds: float) -> BlobStore:
    """Return where the uploads of a data folder are kept.

    Raises:
        UsageError: Its bucket's address is malformed.
    """
    if data.bucket is None:
        return BlobStore(folder=data.blobs)
    bucket = Bucket(data.bucket, patience_seconds=patience_seconds)
    return BlobStore(folder=data.blobs, bucket=bucket)


def _key(name: str) -> str:
    """Return the path of an upload below a folder or bucket."""
    digest = name.removeprefix(PREFIX)
    return f"{digest[:2]}/{digest}"


def _touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def _check(name: str, *, writer: BlobWriter) -> None:
    if writer.name != name:
        raise DataError(
            f"The {writer.size} bytes received hash to {writer.name}. Expected {name}. "
            "Nothing was kept: compute the digest again, and upload again."
        )
