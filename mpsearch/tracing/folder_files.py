"""Files of a model folder, read with care: JSON, weights as safetensors, nothing outside of it."""

import json
from pathlib import Path
from typing import Any, Final

from mpsearch.errors import ModelError

CONFIG: Final = "config.json"
_PICKLES: Final = ("*.bin", "*.pt", "*.pt2", "*.pth", "*.ckpt", "*.pkl", "*.h5", "*.msgpack")


def check_weights(path: Path) -> None:
    """Refuse a folder whose weights are missing, or kept in a format that can run code.

    Raises:
        ModelError: There are no safetensors.
    """
    if any(path.glob("*.safetensors")):
        return
    pickles = sorted(file.name for pattern in _PICKLES for file in path.glob(pattern))
    if pickles:
        raise ModelError(
            f"Folder {str(path)!r} holds its weights only as {pickles[0]!r}, a format that can run "
            "code when it is read. Expected safetensors. Convert it with `safetensors` where you "
            "trust the file, and load the result."
        )
    raise ModelError(
        f"Folder {str(path)!r} holds no weights. Expected a file such as model.safetensors. "
        "Download it again."
    )


def read_json(path: Path, *, kind: type = dict) -> Any:  # noqa: ANN401 - parsed JSON
    """Return what a JSON file of the folder holds.

    Raises:
        ModelError: It cannot be read, or holds another kind of value.
    """
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(
            f"File {str(path)!r} cannot be read: {error}. Expected JSON of a Hugging Face folder. "
            "Download it again."
        ) from error
    if not isinstance(content, kind):
        raise ModelError(
            f"File {str(path)!r} holds a {type(content).__name__}. Expected a {kind.__name__}. "
            "Download it again."
        )
    return content


def inside(path: Path, part: str) -> Path:
    """Return a subfolder of `path`.

    Raises:
        ModelError: It lies elsewhere.
    """
    target = (path / part).resolve()
    if not target.is_relative_to(path.resolve()):
        raise ModelError(
            f"Folder {str(path)!r} refers to {part!r}, outside of it. Expected a subfolder. "
            "Do not use this folder."
        )
    return target


def first_line(error: Exception) -> str:
    """Return the first line of a message that says something, without a full stop."""
    return next((line.strip().rstrip(".") for line in str(error).splitlines() if line.strip()), "")
