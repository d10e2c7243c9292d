"""What a server is started with."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, final

from mpsearch.jobs.data_folder import DataFolder

HOST: Final = "127.0.0.1"  # there are no keys yet, so nobody beyond this machine may ask
DEFAULT_PORT: Final = 8765
_MEBIBYTE: Final = 2**20


@final
@dataclass(frozen=True, kw_only=True)
class Settings:
    """Folders and limits; `roots` are the folders that requests may name, by name.

    `largest_json` is for everything but uploads: tables of 10,000 layers fit well.
    """

    data: DataFolder
    roots: Mapping[str, Path] = field(default_factory=dict)
    largest_json: int = 32 * _MEBIBYTE
    largest_blob: int = 64 * 1024 * _MEBIBYTE
