"""Datasets on disk to records: what the library `datasets` saves, and parquet; nothing is run."""

import io
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from mpsearch.errors import DataError, MissingPackageError
from mpsearch.tasks.tokens import ANSWER, PAIR, TEXT

_LOG = logging.getLogger("mpsearch.tasks")

PARQUET: Final = ".parquet"
_ARROW: Final = ".arrow"
_STATE: Final = "state.json"
_SPLITS: Final = "dataset_dict.json"
_FILES: Final = "_data_files"
_TEXTS: Final = (TEXT, PAIR, ANSWER)


def is_table(path: Path) -> bool:
    """Whether a path is a dataset saved by `datasets` or holds parquet files."""
    if path.is_dir():
        is_saved = any((path / name).is_file() for name in (_STATE, _SPLITS))
        return is_saved or any(path.glob(f"*{PARQUET}"))
    return path.suffix in {PARQUET, _ARROW}


def table_records(
    path: Path, *, input_names: Sequence[str], limit: int | None
) -> list[dict[str, Any]]:
    """Return rows by column: the model's inputs, texts, and labels (whatever else is numbers).

    A folder is what `Dataset.save_to_disk` writes, or holds parquet files, read in the order
    of their names. A column of strings is the text where there is only one. Other columns that
    hold no numbers are left out, and a line of the log says so. Pictures (`Image` columns)
    come as opened images under their own name.

    Raises:
        DataError: There are several splits, a file is missing, damaged or outside the folder,
            there are no rows, or it is not clear which column holds the text.
        MissingPackageError: `pyarrow` is not installed.
    """
    rows: list[dict[str, Any]] = []
    for table in _tables(path):
        left = None if limit is None else limit - len(rows)
        if left == 0:
            break
        kept = table if left is None else table.slice(0, left)
        rows += kept.to_pylist()
    if not rows:
        raise DataError(
            f"Dataset {str(path)!r} has no rows. Expected at least one. Save it with its rows."
        )
    chosen = _columns(rows[0], input_names=input_names, path=path)
    return [{new: _plain(row[old], column=old) for old, new in chosen.items()} for row in rows]


def _tables(path: Path) -> Iterator[Any]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise MissingPackageError(
            f"Dataset {str(path)!r} needs the package 'pyarrow', which is not installed. Expected "
            "the extra 'datasets'. Run: pip install 'mpsearch[datasets]'."
        ) from error
    for file in _files(path):
        try:
            if file.suffix == PARQUET:
                yield parquet.read_table(file, use_threads=False)
            else:
                with pa.OSFile(str(file)) as source:
                    yield pa.ipc.open_stream(source).read_all()
        except (pa.ArrowException, OSError, ValueError) as error:
            raise DataError(
                f"Data file {str(file)!r} cannot be read: {str(error).splitlines()[0]:.200}. "
                "Expected a file of Arrow or parquet. Save the dataset again."
            ) from error


def _files(path: Path) -> list[Path]:
    """Return the files of a dataset in the order of their rows."""
    if not path.is_dir():
        return [path]
    if (path / _SPLITS).is_file():
        splits = _json(path / _SPLITS).get("splits", [])
        raise DataError(
            f"Dataset {str(path)!r} has the splits {splits}. Expected one of them. Give "
            f"{str(path / str((splits or ['train'])[0]))!r}."
        )
    if not (path / _STATE).is_file():
        return sorted(path.glob(f"*{PARQUET}"))
    named = [str(each.get("filename", "")) for each in _json(path / _STATE).get(_FILES, [])]
    found = [(path / name).resolve() for name in named]
    for name, file in zip(named, found, strict=True):
        if file.parent != path.resolve() or not file.is_file():
            raise DataError(
                f"Dataset {str(path)!r} names the file {name!r}, which it does not hold. Expected "
                "each file in the folder itself. Save the dataset again."
            )
    return found


def _columns(row: Mapping[str, Any], *, input_names: Sequence[str], path: Path) -> dict[str, str]:
    """Return which columns are kept, under which names."""
    strings = [name for name, value in row.items() if isinstance(value, str)]
    pictures = [name for name, value in row.items() if _is_picture(value)][:1]
    numbers = [name for name, value in row.items() if isinstance(value, int | float | list)]
    chosen = {name: name for name in (*numbers, *pictures)}
    if not set(input_names) <= set(row) and not pictures:
        chosen |= _text_columns(strings, row=row, input_names=input_names, path=path)
    left_out = sorted(set(row) - set(chosen))
    if left_out:
        _LOG.info("Columns of %s that hold no numbers were left out: %s.", path, left_out)
    return chosen


def _text_columns(
    strings: Sequence[str], *, row: Mapping[str, Any], input_names: Sequence[str], path: Path
) -> dict[str, str]:
    known = {name: name for name in strings if name in _TEXTS}
    if TEXT in known:
        return known
    if len(strings) == 1:
        return {strings[0]: TEXT}
    missing = [name for name in input_names if name not in row]
    raise DataError(
        f"Dataset {str(path)!r} has the columns {sorted(row)}, but not {missing}, and "
        f"{len(strings)} columns of text. Expected the model's inputs {list(input_names)}, or one "
        f"column of text, called {TEXT!r} where there are several. Rename a column."
    )


def _is_picture(value: object) -> bool:
    return isinstance(value, dict) and set(value) == {"bytes", "path"}


def _plain(value: Any, *, column: str) -> Any:  # noqa: ANN401 - the value of any column
    """Return a value, or the picture that it holds in bytes; a path is not followed."""
    if not _is_picture(value):
        return value
    from PIL import Image

    try:
        with Image.open(io.BytesIO(value["bytes"] or b"")) as image:
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(
            f"Column {column!r} holds a picture that cannot be read: {error}. Expected its "
            "bytes in the dataset. Save it with the pictures embedded."
        ) from error


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"File {str(path)!r} cannot be read: {error}. Expected what `save_to_disk` writes. "
            "Save the dataset again."
        ) from error
    if not isinstance(content, dict):
        raise DataError(
            f"File {str(path)!r} holds a {type(content).__name__}. Expected an object, as "
            "`save_to_disk` writes. Save the dataset again."
        )
    return content
