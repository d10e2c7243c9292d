"""A folder of images to batches, prepared as the model's own folder says."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from mpsearch.errors import DataError, MissingPackageError
from mpsearch.tasks.collate import LABELS

_LOG = logging.getLogger("mpsearch.tasks")

SETTINGS: Final = "preprocessor_config.json"
_CONFIG: Final = "config.json"
_SUFFIXES: Final = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".ppm"})


def image_batches(
    folder: Path, *, model: Path | None, input_name: str, batch_size: int, limit: int | None
) -> Iterator[tuple[dict[str, Tensor], range]]:
    """Yield images as the model wants them, and the classes that subfolders stand for.

    Subfolders are classes: by the names of the model's config where it knows them all, by
    their numbers where all are numbers, else in the order of their names. Classes take turns,
    so that a limit leaves some of each. Without subfolders there are no labels.

    Args:
        folder: Images, or one subfolder per class.
        model: Folder of the model, whose `preprocessor_config.json` says how images are
            resized, cut and normalised.
        input_name: What the model calls them.
        batch_size: Images per batch.
        limit: Read at most this many.

    Raises:
        DataError: There are no images, one cannot be read, or nothing says how to prepare them.
        MissingPackageError: pillow or transformers is not installed.
    """
    prepare = _prepare(model, origin=folder)
    assert model is not None
    found = _labelled(folder, model=model)[:limit]
    for start in range(0, len(found), batch_size):
        part = found[start : start + batch_size]
        pixels = prepare([_opened(path) for path, _ in part])
        batch = {input_name: torch.from_numpy(np.ascontiguousarray(pixels))}
        classes = [label for _, label in part if label is not None]
        if classes:
            batch[LABELS[0]] = torch.tensor(classes)
        yield batch, range(start, start + len(part))


def prepared_images(images: Sequence[Any], *, model: Path | None, origin: Path) -> Any:  # noqa: ANN401 - an array of one picture per row
    """Return opened images as the model wants them, in one array.

    Raises:
        DataError: Nothing says how to prepare them.
        MissingPackageError: pillow or transformers is not installed.
    """
    return _prepare(model, origin=origin)(list(images))


def is_opened(value: object) -> bool:
    """Whether a value is an image that was opened."""
    return hasattr(value, "convert") and hasattr(value, "mode")


def _prepare(model: Path | None, *, origin: Path) -> Any:  # noqa: ANN401 - transformers is untyped
    if model is None or not (model / SETTINGS).is_file():
        raise DataError(
            f"Folder {str(origin)!r} holds images, but the model came without {SETTINGS}, which "
            "says how they are prepared. Expected a model folder with it. Give arrays, or an "
            "iterable of batches that are prepared."
        )
    return _processor(model)


def _labelled(folder: Path, *, model: Path) -> list[tuple[Path, int | None]]:
    """Return files with their classes, the first of each class before the second of any."""
    groups = {place.name: _images(place) for place in sorted(folder.iterdir()) if place.is_dir()}
    groups = {name: files for name, files in groups.items() if files}
    plain = _images(folder)
    if bool(plain) == bool(groups):
        raise DataError(
            f"Folder {str(folder)!r} has {len(plain)} images and {len(groups)} subfolders of "
            f"images. Expected images ({', '.join(sorted(_SUFFIXES))}) in the folder, or in one "
            "subfolder per class. Sort them."
        )
    if plain:
        return [(path, None) for path in plain]
    classes = _classes(list(groups), known=_known_classes(model))
    turns = zip_longest(*([(path, classes[name]) for path in groups[name]] for name in groups))
    return [each for turn in turns for each in turn if each is not None]


def _images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES)


def _known_classes(model: Path) -> Mapping[str, int]:
    if not (model / _CONFIG).is_file():
        return {}
    known = json.loads((model / _CONFIG).read_text(encoding="utf-8")).get("label2id") or {}
    return {str(name): int(number) for name, number in known.items()}


def _classes(names: Sequence[str], *, known: Mapping[str, int]) -> dict[str, int]:
    if set(names) <= set(known):
        return {name: known[name] for name in names}
    if all(name.isdecimal() for name in names):
        return {name: int(name) for name in names}
    _LOG.info("Subfolders are classes in the order of their names: %s.", ", ".join(names[:10]))
    return {name: place for place, name in enumerate(names)}


def _processor(model: Path) -> Any:  # noqa: ANN401 - transformers is untyped
    """Return what turns opened images into one array."""
    try:
        import PIL  # noqa: F401 - transformers reports its absence less plainly
        import transformers
    except ImportError as error:
        raise MissingPackageError(
            f"Reading images needs the package {error.name!r}, which is not installed. Expected "
            "the extra 'images'. Run: pip install 'mpsearch[images]'."
        ) from error
    known: Any = transformers.AutoImageProcessor
    try:
        processor = known.from_pretrained(
            model, local_files_only=True, trust_remote_code=False, backend="pil"
        )
    except Exception as error:  # transformers raises whatever its parts raise
        raise DataError(
            f"File {str(model / SETTINGS)!r} cannot be used: {error}. Expected the settings of an "
            "image processor of transformers. Download it again, or give prepared arrays."
        ) from error
    return lambda images: processor(images=images, return_tensors="np")["pixel_values"]


def _opened(path: Path) -> Any:  # noqa: ANN401 - an image of PIL
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(
            f"Image {str(path)!r} cannot be read: {error}. Expected a picture of at most some "
            "hundred million pixels. Remove it, or save it anew."
        ) from error
