"""From what a request names to files: under an allow-listed root, or among the uploads.

Nothing here reads more of a file than its first bytes, and nothing is ever unpickled.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn, final

from mpsearch.errors import AbsentError, DataError, ModelError
from mpsearch.jobs.request import DataBlob, DataSource, ModelFiles, ModelSource, RootSource
from mpsearch.jobs.uploads import Uploads

_ACCEPTED: Final = (
    "a Hugging Face folder (config.json, weights as .safetensors and, for text, tokenizer.json) "
    "or one ONNX file with its weights in it or beside it"
)
_ONNX: Final = ".onnx"
_PICKLES: Final = (".bin", ".pt", ".pth", ".pt2", ".ckpt", ".pkl", ".pickle", ".h5", ".msgpack")
_WEIGHTS: Final = ".safetensors"
_CONFIG: Final = "config.json"
# A safetensors file: the header's length in 8 bytes, little-endian, then the header in JSON.
_LENGTH_BYTES: Final = 8
_LARGEST_HEADER: Final = 100_000_000  # what the safetensors library accepts
_ZIP: Final = b"PK"
_PICKLE_MARK: Final = b"\x80"


@final
@dataclass(frozen=True, kw_only=True)
class Sources:
    """What requests may name: folders by name, and uploads."""

    roots: Mapping[str, Path]
    blobs: Uploads

    def model(self, source: ModelSource) -> Path | dict[str, Path]:
        """Return the model's folder or ONNX file, or its uploaded files by their names.

        Raises:
            AbsentError: It is not there, or lies outside its root.
            ModelError: It is of a kind that is not read.
        """
        if isinstance(source, RootSource):
            path = self._under_root(source)
            files = _listed(path)
            _check_model(files, origin=source.path)
            name = onnx_name(files)
            if name is None or not path.is_dir():
                return path
            # Found anew by its own name: it may be a link that leads out of the root.
            return self._under_root(RootSource(root=source.root, path=f"{source.path}/{name}"))
        assert isinstance(source, ModelFiles)
        # The names are judged first: what is no model is refused unread, uploaded or not.
        _check_names(tuple(source.files), origin="of uploads")
        files = {name: self.blobs.path(digest) for name, digest in source.files.items()}
        _check_model(files, origin="of uploads")
        return files

    def data(self, source: DataSource) -> tuple[Path, str]:
        """Return the file of samples and its suffix.

        Raises:
            AbsentError: It is not there, or lies outside its root.
            DataError: It is no `.npz` or `.jsonl`.
        """
        if isinstance(source, RootSource):
            path = self._under_root(source)
            origin, suffix = source.path, path.suffix
        else:
            assert isinstance(source, DataBlob)
            path, origin, suffix = self.blobs.path(source.blob), source.blob, f".{source.format}"
        _check_data(path, suffix=suffix, origin=origin)
        return path, suffix

    def _under_root(self, source: RootSource) -> Path:
        if source.root not in self.roots:
            _refuse(source)
        root = self.roots[source.root].resolve()
        try:
            target = (root / source.path).resolve()
            inside = target.is_relative_to(root) and target.exists()
        except OSError:  # a name longer than the file system takes, a loop of links
            inside = False
        if not inside:
            _refuse(source)
        return target


def _refuse(source: RootSource) -> NoReturn:
    """Say the same of what does not exist and of what lies outside, so that nothing leaks."""
    raise AbsentError(
        f"Root {source.root!r} holds no {source.path!r}. Expected a path under a root that the "
        "server was started with. Check both names, or start it with --root NAME=FOLDER."
    )


def _listed(path: Path) -> dict[str, Path]:
    return {file.name: file for file in path.iterdir()} if path.is_dir() else {path.name: path}


def _check_model(files: Mapping[str, Path], *, origin: str) -> None:
    _check_names(tuple(files), origin=origin)
    for name, path in files.items():
        if name.endswith(_WEIGHTS):
            _check_safetensors(path, name=name)
        elif name.endswith(_ONNX):
            _check_onnx(path, name=name)


def onnx_name(names: Iterable[str]) -> str | None:
    """Return the one ONNX file among the names of a model's files, None where it is a folder."""
    known = tuple(names)
    found = [name for name in known if name.endswith(_ONNX)]
    return found[0] if len(found) == 1 and not _is_folder(known) else None


def _is_folder(names: tuple[str, ...]) -> bool:
    return any(name.endswith(_WEIGHTS) for name in names) and _CONFIG in names


def _check_names(names: tuple[str, ...], *, origin: str) -> None:
    if _is_folder(names):
        return
    onnx = [name for name in names if name.endswith(_ONNX)]
    pickled = [name for name in names if name.endswith(_PICKLES)]
    if len(onnx) == 1 and not pickled:
        return
    if pickled:
        fact = f"has weights as {pickled[0]!r}, a format that can run code, and was left unread"
    elif onnx:
        fact = f"holds {len(onnx)} ONNX files, first {min(onnx)!r}"
    else:
        lacking = "no .safetensors" if _CONFIG in names else f"no {_CONFIG}"
        fact = f"holds {lacking}"
    raise ModelError(
        f"Model {origin!r} {fact}. Expected {_ACCEPTED}. Convert the model, and post again."
    )


def _check_onnx(path: Path, *, name: str) -> None:
    """Refuse what calls itself ONNX and begins as a pickle or an archive does."""
    with path.open("rb") as file:
        start = file.read(2)
    if not start or start[:1] == _PICKLE_MARK or start == _ZIP:
        raise ModelError(
            f"File {name!r} is no ONNX file by its first bytes, and was left unread. Expected "
            f"{_ACCEPTED}. Export the model again, and post again."
        )


def _check_safetensors(path: Path, *, name: str) -> None:
    with path.open("rb") as file:
        start = file.read(_LENGTH_BYTES + 1)
    length = int.from_bytes(start[:_LENGTH_BYTES], "little")
    room = min(path.stat().st_size - _LENGTH_BYTES, _LARGEST_HEADER)
    if len(start) <= _LENGTH_BYTES or length > room or start[_LENGTH_BYTES:] != b"{":
        kind = "a pickle" if start[:1] == _PICKLE_MARK or start[:2] == _ZIP else "something else"
        raise ModelError(
            f"File {name!r} is no safetensors file but {kind}, and was left unread. Expected "
            f"{_ACCEPTED}. Save the weights with safetensors, and post again."
        )


def _check_data(path: Path, *, suffix: str, origin: str) -> None:
    if suffix not in (".npz", ".jsonl") or not path.is_file():
        raise DataError(
            f"Data {origin!r} is of kind {suffix or 'folder'!r}. Expected .npz without objects, or "
            ".jsonl. Convert it, and post again."
        )
    with path.open("rb") as file:
        start = file.read(2)
    if (suffix == ".npz") != (start == _ZIP) or start[:1] == _PICKLE_MARK:
        raise DataError(
            f"Data {origin!r} is no {suffix} file by its first bytes, and was left unread. "
            "Expected .npz without objects, or .jsonl. Convert it, and post again."
        )
