"""Files of plans and tables: JSON and pickle-free `.npz` with a JSON header, written atomically."""

import dataclasses
import io
import json
import os
import secrets
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import numpy as np
from numpy import ndarray
from pydantic import TypeAdapter, ValidationError

from mpsearch.core.plan import SCHEMA_VERSION, Plan
from mpsearch.core.tables import CostTable, SensitivityTable
from mpsearch.errors import DataError, MpsearchError, PlanError

_HEADER = "header"
# What NumPy and zipfile raise at a damaged archive: seen by flipping each of its bytes.
_DAMAGE = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    EOFError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
)
_Table = TypeVar("_Table", SensitivityTable, CostTable)


def write_atomically(path: Path, content: bytes) -> None:
    """Write all of `content` to `path`, or leave what was there: never half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not `tempfile`: its files are for the owner alone, and these are for whom umask says.
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with unfinished.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def to_json(value: object) -> str:
    """Return JSON of a frozen dataclass, mapping or list of them, floats at full precision."""
    return TypeAdapter(Any).dump_json(value, indent=2).decode()


def save_plan(plan: Plan, path: Path) -> None:
    """Write a plan as JSON."""
    write_atomically(path, to_json(plan).encode())


def load_plan(path: Path) -> Plan:
    """Read a plan that `save_plan` wrote.

    Raises:
        PlanError: The file is missing, is no plan, or is of a newer schema.
    """
    try:
        raw = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise PlanError(
            f"Plan {str(path)!r} cannot be read: {error}. Expected the JSON file that "
            "`mpsearch search` writes. Check the path, or search again."
        ) from error
    return plan_from_dict(raw, origin=str(path))


def plan_from_dict(raw: object, *, origin: str) -> Plan:
    """Build a plan from parsed JSON; `origin` names its source in messages.

    Raises:
        PlanError: It is no plan, or of a newer schema.
    """
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise PlanError(
            f"Plan {origin!r} has schema version {version}. Expected at most {SCHEMA_VERSION}. "
            "Upgrade mpsearch to read it."
        )
    try:
        return TypeAdapter(Plan).validate_json(json.dumps(raw), extra="forbid")
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the top level"
        raise PlanError(
            f"Plan {origin!r} is malformed at {place}: {first['msg']}. "
            f"Expected schema version {SCHEMA_VERSION}. Search again, or mend the file."
        ) from error


def save_table(table: SensitivityTable | CostTable, path: Path) -> None:
    """Write a table as one `.npz` without pickles: arrays beside a JSON header."""
    arrays: dict[str, ndarray] = {}
    header = {"type": type(table).__name__}
    for name, value in vars(table).items():
        if isinstance(value, ndarray):
            arrays[name] = value
        elif isinstance(value, Mapping) and any(isinstance(v, ndarray) for v in value.values()):
            arrays |= {f"{name}/{key}": array for key, array in value.items()}
        else:
            header[name] = json.loads(to_json(value))
    arrays[_HEADER] = np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    write_atomically(path, buffer.getvalue())


def load_table(path: Path, kind: type[_Table]) -> _Table:
    """Read a table that `save_table` wrote, as the `kind` that is expected.

    Raises:
        DataError: The file is missing, damaged, or holds another kind of table.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = dict(archive)
        header = json.loads(arrays.pop(_HEADER).tobytes())
        found = header.pop("type")
        if found != kind.__name__:
            raise DataError(
                f"File {str(path)!r} holds a {found}. Expected a {kind.__name__}. "
                "Pass the other file."
            )
        return _build(kind, header=header, arrays=arrays)
    except MpsearchError:
        raise
    except _DAMAGE as error:
        raise DataError(
            f"Table {str(path)!r} cannot be read: {error}. Expected the .npz file of a "
            f"{kind.__name__}. Check the path, or measure again."
        ) from error


def _build(kind: type[_Table], *, header: dict[str, Any], arrays: dict[str, ndarray]) -> _Table:
    fields: dict[str, Any] = {}
    hints = get_type_hints(kind)
    absent = {each.name for each in dataclasses.fields(kind) if each.default is None}
    for name in hints:
        nested = {
            key.split("/", 1)[1]: array
            for key, array in arrays.items()
            if key.startswith(f"{name}/")
        }
        if name in arrays:
            fields[name] = arrays[name]
        elif nested or header.get(name) == {}:
            fields[name] = nested
        elif name in absent and header.get(name) is None:
            # Older files lack it: it was added later, or nothing is known of it.
            fields[name] = None
        else:
            fields[name] = TypeAdapter(hints[name]).validate_json(json.dumps(header[name]))
    return kind(**fields)
