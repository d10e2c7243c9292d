"""The content-addressed store of everything measured: interrupted work resumes from it.

A key is a hash of what a value depends on (model, data, layer, format, revision), so a
value never goes stale. Each file carries its own checksum; a damaged one is measured again.
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import platformdirs
from jaxtyping import UInt8
from numpy import ndarray

from mpsearch.core.files import write_atomically

_LOG = logging.getLogger("mpsearch.cache")
_DIGEST_BYTES = 32


def content_hash(*parts: object) -> str:
    """Return a hex digest of parts: bytes, arrays, or anything JSON can hold.

    Example:
        >>> content_hash("a", 1) == content_hash("a", 1) != content_hash("a", 2)
        True
    """
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, bytes):
            content = b"b" + part
        elif isinstance(part, np.ndarray):
            content = f"a{part.dtype}{part.shape}".encode() + np.ascontiguousarray(part).tobytes()
        else:
            content = b"j" + json.dumps(part, sort_keys=True, default=str).encode()
        digest.update(len(content).to_bytes(8, "big"))
        digest.update(content)
    return digest.hexdigest()


def default_cache_folder() -> Path:
    """Return the folder that measured values are kept in unless told otherwise."""
    return Path(platformdirs.user_cache_dir("mpsearch"))


@final
@dataclass(frozen=True, kw_only=True)
class Cache:
    """A folder of values by key, in one subfolder per kind of value (`kind`)."""

    folder: Path

    def get(self, kind: str, key: str) -> dict[str, Any] | None:
        """Return the stored JSON value, or None where there is none or it is damaged."""
        content = self.get_bytes(kind, key)
        return None if content is None else json.loads(content)

    def put(self, kind: str, key: str, *, value: Mapping[str, Any]) -> None:
        """Store a JSON value; floats keep every bit."""
        self.put_bytes(kind, key, content=json.dumps(value).encode())

    def holds(self, kind: str, key: str) -> bool:
        """Return whether something is stored under a key, damaged or not."""
        return self._path(kind, key).is_file()

    def get_bytes(self, kind: str, key: str) -> bytes | None:
        """Return stored bytes, or None where there are none or they are damaged."""
        path = self._path(kind, key)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        checksum, body = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
        if hashlib.sha256(body).digest() != checksum:
            _LOG.warning("Cache file %s is damaged; its value will be measured again.", path)
            path.unlink(missing_ok=True)
            return None
        return body

    def map_bytes(self, kind: str, key: str) -> UInt8[ndarray, " N"] | None:
        """Return stored bytes as a read-only array that stays on disk, checked once."""
        if self.get_bytes(kind, key) is None:
            return None
        stored = np.memmap(self._path(kind, key), mode="r", dtype=np.uint8)
        return np.asarray(stored[_DIGEST_BYTES:])

    def put_bytes(self, kind: str, key: str, *, content: bytes) -> None:
        """Store bytes with their checksum, atomically."""
        write_atomically(self._path(kind, key), hashlib.sha256(content).digest() + content)

    def sizes(self) -> dict[str, tuple[int, int]]:
        """Return {kind: (number of values, bytes)}."""
        found: dict[str, tuple[int, int]] = {}
        for path in sorted(self.folder.glob("*/*/*")):
            if path.is_file():
                count, size = found.get(path.parts[-3], (0, 0))
                found[path.parts[-3]] = (count + 1, size + path.stat().st_size)
        return found

    def clear(self, kind: str | None = None) -> int:
        """Delete all values, or those of one kind, and return how many there were."""
        paths = [p for p in self.folder.glob(f"{kind or '*'}/*/*") if p.is_file()]
        for path in paths:
            path.unlink(missing_ok=True)
        return len(paths)

    def _path(self, kind: str, key: str) -> Path:
        return self.folder / kind / key[:2] / key
