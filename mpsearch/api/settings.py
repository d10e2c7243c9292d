"""What a server is started with; the only place that reads the environment."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, final

from mpsearch.jobs.data_folder import DataFolder

HOST: Final = "127.0.0.1"
LOOPBACK_HOSTS: Final = (HOST, "localhost")
DEFAULT_PORT: Final = 8765
_MEBIBYTE: Final = 2**20
_DATABASE: Final = "MPS_DATABASE_URL"
_BLOBS: Final = "MPS_BLOBS_URL"


@final
@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one tenant may have and ask for; rates are per key, and not for open loopback."""

    active_jobs: int = 1000
    blob_bytes: int = 256 * 1024 * _MEBIBYTE
    requests_per_second: float = 200.0
    burst: int = 400
    # Of one address, whose keys were not valid.
    failures_per_second: float = 5.0
    failures_burst: int = 50
    open_streams: int = 2000


@final
@dataclass(frozen=True, kw_only=True)
class Settings:
    """Folders and limits; `roots` are the folders that requests may name, by name.

    `host` beyond loopback makes every request need a key, whether there is one or not.
    `largest_json` is for everything but uploads: tables of 10,000 layers fit well.
    """

    data: DataFolder
    host: str = HOST
    roots: Mapping[str, Path] = field(default_factory=dict)
    largest_json: int = 32 * _MEBIBYTE
    largest_blob: int = 64 * 1024 * _MEBIBYTE
    limits: Limits = field(default_factory=Limits)

    @property
    def is_local(self) -> bool:
        """Return whether only this machine reaches the server."""
        return self.host in LOOPBACK_HOSTS


def data_folder(path: Path) -> DataFolder:
    """Return a data folder, with what MPS_DATABASE_URL and MPS_BLOBS_URL name if they do."""
    return DataFolder(
        path=path.resolve(),
        database=os.environ.get(_DATABASE) or None,
        bucket=os.environ.get(_BLOBS) or None,
    )
