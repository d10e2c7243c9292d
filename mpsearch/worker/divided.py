"""The shards that a runner asks for: a file in the job's folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field, TypeAdapter

from mpsearch.core.files import to_json, write_atomically

_FILE: Final = "shards.json"
_Name = Annotated[str, Field(max_length=1000)]
_Layers = Annotated[tuple[_Name, ...], Field(min_length=1, max_length=10_000)]
# As if by a stranger: the runner that wrote it had read a stranger's model.
_SHARDS: Final = TypeAdapter(Annotated[tuple[_Layers, ...], Field(min_length=1, max_length=1000)])


def save_shards(shards: Sequence[Sequence[str]], folder: Path) -> None:
    """Write the layers of each shard into the folder of the job."""
    write_atomically(folder / _FILE, to_json(shards).encode())


def load_shards(folder: Path) -> tuple[tuple[str, ...], ...] | None:
    """Return what a runner asked for, None where it did not.

    Raises:
        ValueError: It is malformed.
    """
    path = folder / _FILE
    return _SHARDS.validate_json(path.read_bytes()) if path.exists() else None
