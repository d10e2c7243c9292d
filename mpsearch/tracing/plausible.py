"""What no model needs, refused before a library is asked to build it."""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from mpsearch.errors import ModelError

_CONFIG: Final = "config.json"
_WEIGHTS: Final = "*.safetensors"
_LENGTH_BYTES: Final = 8
# The largest models have some thousands of tensors a file, at about 100 bytes each.
_LARGEST_HEADER: Final = 8 * 2**20
_LARGEST_CONFIG: Final = 2**20
# Ten times the deepest model there is, and larger than any vocabulary or width.
_MOST_LAYERS: Final = 1000
_LARGEST_NUMBER: Final = 2**28
_BEYOND: Final = 1e300
# No weight depends on it where a model is convolutional, and the example has as many pixels.
_LARGEST_IMAGE: Final = 4096
# Ten times the steps that any denoiser was trained with.
_MOST_STEPS: Final = 10_000
# Latents of pictures have a side of 32 to 256; positions in them are computed, not stored.
_LARGEST_LATENT: Final = 1024
# Fields that say how often a block is repeated; each block has tensors of its own.
_COUNTS: Final = frozenset(
    {
        *("num_hidden_layers", "num_layers", "n_layers", "n_layer", "depths"),
        *(
            "encoder_layers",
            "decoder_layers",
            "num_decoder_layers",
            "layers_per_block",
            "transformer_layers_per_block",
        ),
    }
)


def check_folder(place: Path) -> None:
    """Refuse a model folder whose sizes alone would keep a process busy for ever.

    Raises:
        ModelError: A number in its config, or a header of its weights, is beyond any model's, or
            it has more layers than tensors.
    """
    config = place / _CONFIG
    numbers = tuple(_numbers(config)) if config.is_file() else ()
    for name, value in numbers:
        _check_number(name, value)
    tensors = sum(_tensors(path) for path in sorted(place.glob(_WEIGHTS)))
    for name, value in numbers:
        if name in _COUNTS and value > tensors:
            raise ModelError(
                f"{_CONFIG} says {name} = {value:.4g}, and the weights are {tensors} tensors. "
                "Expected at least one for each layer. Download the folder again."
            )


def check_parameters(shell: nn.Module, *, place: Path) -> None:
    """Refuse a model without values, `shell`, that needs more numbers than its files can hold.

    Raises:
        ModelError: It has more parameters than the files have bytes.
    """
    held = sum(path.stat().st_size for path in place.glob(_WEIGHTS))
    needed = sum(each.numel() for each in shell.parameters())
    kept = sum(each.numel() for each in shell.buffers())
    if needed > held or kept > max(held, _LARGEST_NUMBER):
        raise ModelError(
            f"{_CONFIG} describes {needed:.4g} parameters and {kept:.4g} constants, and the "
            f"weights are {held} bytes. Expected at least a byte for each parameter. Download "
            "the folder again."
        )


def check_schedule(config: Mapping[str, Any]) -> None:
    """Refuse a scheduler of diffusers with more steps than any has: each becomes numbers.

    Raises:
        ModelError: It has.
    """
    for name, value in _numbers_in(config):
        if name.endswith("steps") and abs(value) > _MOST_STEPS:
            raise ModelError(
                f"The scheduler says {name} = {value:.4g}. Expected at most {_MOST_STEPS}. Use a "
                "scheduler that exists."
            )


def meta_device() -> torch.device:
    """Return the device on which tensors have shapes and no values."""
    return torch.device("meta")


def _check_number(name: str, value: float) -> None:
    most = _LARGEST_NUMBER
    if "layer" in name or name in _COUNTS:
        most = _MOST_LAYERS
    elif name == "image_size":
        most = _LARGEST_IMAGE
    elif name == "sample_size":
        most = _LARGEST_LATENT
    if abs(value) > most:
        raise ModelError(
            f"{_CONFIG} says {name} = {value:.4g}. Expected at most {most}. Use a model that "
            "exists."
        )


def _tensors(path: Path) -> int:
    """Return how many tensors a file holds, by its header."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        if length > _LARGEST_HEADER:
            raise ModelError(
                f"The header of {path.name!r} is too large, {length:.4g} bytes. Expected at most "
                f"{_LARGEST_HEADER}. Save the weights in several files."
            )
        header = _parsed(file.read(length), name=path.name)
    return len(header.keys() - {"__metadata__"}) if isinstance(header, Mapping) else 0


def _numbers(config: Path) -> Iterator[tuple[str, float]]:
    if config.stat().st_size > _LARGEST_CONFIG:
        raise ModelError(
            f"{_CONFIG} has {config.stat().st_size} bytes. Expected at most {_LARGEST_CONFIG}. "
            "Use the config of a model."
        )
    yield from _numbers_in(_parsed(config.read_bytes(), name=_CONFIG))


def _numbers_in(value: Any) -> Iterator[tuple[str, float]]:  # noqa: ANN401 - parsed JSON
    """Yield each number with the name of its field, however deep."""
    parts: list[tuple[str, Any]] = [("", value)]
    while parts:
        name, part = parts.pop()
        if isinstance(part, dict):
            parts += [(str(key), value) for key, value in part.items()]
        elif isinstance(part, list):
            parts += [(name, value) for value in part]
        elif isinstance(part, int | float) and part == part:  # noqa: PLR0124  # not NaN
            # Beyond a float's range, JSON writes whole numbers out.
            yield name, float(part) if abs(part) < _BEYOND else math.inf


def _parsed(text: bytes, *, name: str) -> Any:  # noqa: ANN401 - parsed JSON
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(
            f"File {name!r} cannot be read: {error}. Expected JSON, in a safetensors file as its "
            "header. Download it again."
        ) from error
