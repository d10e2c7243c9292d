"""A bucket of an object store, where uploads outlive the machine that took them in."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, NoReturn, final
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import from_url

from mpsearch.errors import StorageError, UsageError

# Pieces of an upload that are under way at once, of so many bytes: 40 MiB of memory in all.
_PIECES: Final = 8
_PIECE: Final = 5 * 2**20
_KINDS: Final = ("s3", "gs", "az", "file")
# How long an answer that failed is asked for again.
_PATIENCE_SECONDS: Final = 10.0


@final
class Bucket:
    """Objects by name. Every method raises StorageError where the store cannot be reached."""

    def __init__(self, url: str, *, patience_seconds: float = _PATIENCE_SECONDS) -> None:
        """Open `s3://bucket/prefix`, `gs://...`, `az://...` or `file:///folder`.

        Keys, region and endpoint come from the environment, as each store's own tools have
        them: `AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL` and so on.

        Raises:
            UsageError: The URL is of another kind, or malformed.
        """
        self.url = url
        kind = urlsplit(url).scheme
        # A folder that is not there is made, as the data folder is.
        options: dict[str, Any] = (
            {"mkdir": True} if kind == "file" else {"retry_config": _retry(patience_seconds)}
        )
        if kind not in _KINDS:
            _refuse(url, f"its kind is {kind!r}")
        try:
            self._store = from_url(url, **options)
        except (BaseError, ValueError) as error:
            _refuse(url, _first_line(error))

    def holds(self, name: str) -> bool:
        """Return whether there is such an object."""
        try:
            with self._reached():
                obstore.head(self._store, name)
        except FileNotFoundError:
            return False
        return True

    def put(self, name: str, path: Path) -> None:
        """Send a file, which appears whole or not at all."""
        with self._reached():
            try:
                obstore.put(self._store, name, path, chunk_size=_PIECE, max_concurrency=_PIECES)
            except FileNotFoundError as error:
                # So it says where there is no bucket.
                raise BaseError(str(error)) from error

    def pieces(self, name: str) -> Iterator[bytes]:
        """Yield what an object holds, a piece at a time.

        Raises:
            FileNotFoundError: There is no such object.
        """
        with self._reached():
            for piece in obstore.get(self._store, name).stream(min_chunk_size=_PIECE):
                yield bytes(piece)

    @contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except BaseError as error:
            raise StorageError(
                f"The store of uploads {self.url!r} does not serve us: {_first_line(error)}. "
                "Expected an answer. Try again later, or see to its address and keys."
            ) from error


def _refuse(url: str, fact: str) -> NoReturn:
    raise UsageError(
        f"Uploads cannot be kept at {url!r}: {fact}. Expected MPS_BLOBS_URL to be "
        "s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX or file:///FOLDER. Mend it, "
        "or leave it out to keep them in the data folder."
    )


def _retry(seconds: float) -> dict[str, object]:
    return {"max_retries": 10, "retry_timeout": timedelta(seconds=seconds)}


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
