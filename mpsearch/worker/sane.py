"""What no model needs, refused before a library is asked to build it; read in the sandbox only."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from mpsearch.errors import ModelError

_CONFIG: Final = "config.json"
_LENGTH_BYTES: Final = 8
# The largest models have some thousands of tensors a file, at about 100 bytes each.
_LARGEST_HEADER: Final = 8 * 2**20
_LARGEST_CONFIG: Final = 2**20
# Ten times the deepest model there is, and larger than any vocabulary or width.
_MOST_LAYERS: Final = 1000
_LARGEST_NUMBER: Final = 2**28


def check_model(place: Path) -> None:
    """Refuse a model folder whose sizes alone would keep a process busy for ever.

    Raises:
        ModelError: A number in its config, or a header of its weights, is beyond any model's.
    """
    if not place.is_dir():
        return
    config = place / _CONFIG
    if config.is_file():
        for name, value in _numbers(config):
            most = _MOST_LAYERS if "layers" in name else _LARGEST_NUMBER
            if abs(value) > most:
                raise ModelError(
                    f"{_CONFIG} says {name} = {value:.4g}. Expected at most {most}. Post a model "
                    "that exists."
                )
    for path in sorted(place.glob("*.safetensors")):
        with path.open("rb") as file:
            length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        if length > _LARGEST_HEADER:
            raise ModelError(
                f"The header of {path.name!r} is too large, {length:.4g} bytes. Expected at most "
                f"{_LARGEST_HEADER}. Save the weights in several files."
            )


def _numbers(config: Path) -> Iterator[tuple[str, float]]:
    if config.stat().st_size > _LARGEST_CONFIG:
        raise ModelError(
            f"{_CONFIG} has {config.stat().st_size} bytes. Expected at most {_LARGEST_CONFIG}. "
            "Post the config of a model."
        )
    try:
        found = json.loads(config.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ModelError(
            f"{_CONFIG} cannot be read: {error}. Expected JSON. Download it again."
        ) from error
    parts = [found]
    while parts:
        part = parts.pop()
        if isinstance(part, list):
            parts += part
        elif isinstance(part, dict):
            parts += part.values()
            yield from (
                (str(name), value)
                for name, value in part.items()
                if isinstance(value, int | float) and value == value  # noqa: PLR0124  # not NaN
            )
