"""Look-up tables of costs as files: CSV or JSON, one row per format of a layer or signature.

A table says what device it is of, whether it was measured or estimated, and where from. In CSV
these facts are lines `# key: value` above the header; an empty amount means that the device
has no kernel for the pair.
"""

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, final

from mpsearch.core.files import write_atomically
from mpsearch.core.graph import LayerGraph
from mpsearch.core.tables import CostTable
from mpsearch.errors import DataError

Key: TypeAlias = Literal["layer", "signature"]
_KEYS: Final[tuple[Key, ...]] = ("layer", "signature")
_FORMAT: Final = "format"
_FACTS: Final = ("device", "source", "estimate")
_SHOWN: Final = 3  # rows in a message


@final
@dataclass(frozen=True, kw_only=True)
class LutRow:
    """What one layer or signature spends in one format; no amount: the device has no kernel."""

    name: str
    format: str
    amount: Mapping[str, float]


@final
@dataclass(frozen=True, kw_only=True)
class Lut:
    """Rows by `key`, of one device; amounts in the unit that their resource's name ends with.

    `estimate` tells a table that follows from a description from one that was measured.
    """

    device: str
    key: Key
    rows: tuple[LutRow, ...]
    source: str = ""
    estimate: bool = False
    resources: tuple[str, ...] = field(default=("latency_ns",))

    @property
    def formats(self) -> tuple[str, ...]:
        """Return the formats in the order of their first row."""
        return tuple(dict.fromkeys(row.format for row in self.rows))

    def amounts(self, name: str, format_name: str) -> Mapping[str, float] | None:
        """Return the amounts of a row, empty where there is no kernel; None without a row."""
        return self._known.get((name, format_name))

    @cached_property
    def _known(self) -> dict[tuple[str, str], Mapping[str, float]]:
        return {(row.name, row.format): row.amount for row in self.rows}


def read_lut(path: Path, *, device: str | None = None) -> Lut:
    """Read a table from a file that ends in .csv or .json.

    Args:
        path: The file.
        device: The device that the table must be of; None takes any.

    Raises:
        DataError: It cannot be read, is of another device, or a row is duplicated, negative
            or no number.
    """
    try:
        text = path.read_text(encoding="utf-8")
        lut = _from_json(text) if path.suffix == ".json" else _from_csv(text)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"File {str(path)!r} is no look-up table: {error}. Expected CSV with the columns "
            "'layer' or 'signature', 'format' and amounts such as 'latency_ns', or the same as "
            "JSON. Write one with `mpsearch snippets` to see its form."
        ) from error
    _check(lut, path=path, device=device)
    return lut


def write_lut(lut: Lut, path: Path) -> None:
    """Write a table as CSV, or as JSON where the name ends in .json."""
    text = _to_json(lut) if path.suffix == ".json" else _to_csv(lut)
    write_atomically(path, text.encode())


def lut_of(table: CostTable, graph: LayerGraph, *, key: Key = "layer") -> Lut:
    """Return a cost table as rows; what edges cost is left out, a signature gets its mean."""
    names = graph.names if key == "layer" else tuple(layer.signature for layer in graph.layers)
    resources = tuple(table.amount)
    rows = []
    for name in dict.fromkeys(names):
        places = [place for place, each in enumerate(names) if each == name]
        for column, format_name in enumerate(table.formats):
            offered = all(table.allowed[place, column] for place in places)
            amount = {
                resource: float(table.amount[resource][places, column].mean())
                for resource in (resources if offered else ())
            }
            rows.append(LutRow(name=name, format=format_name, amount=amount))
    return Lut(
        device=table.device.name,
        key=key,
        rows=tuple(rows),
        source=f"profiled in {table.device.runtime}",
        resources=resources,
    )


def _check(lut: Lut, *, path: Path, device: str | None) -> None:
    if device is not None and lut.device != device:
        raise DataError(
            f"Look-up table {str(path)!r} is of device {lut.device!r}. Expected {device!r}. "
            "Time the snippets there, or solve for the table's own device."
        )
    seen: set[tuple[str, str]] = set()
    for row in lut.rows:
        pair = (row.name, row.format)
        if pair in seen:
            raise DataError(
                f"Look-up table {str(path)!r} has two rows of {row.name!r} in {row.format!r}. "
                "Expected one. Delete the wrong one."
            )
        seen.add(pair)
        for resource, value in row.amount.items():
            if not (math.isfinite(value) and value >= 0):
                raise DataError(
                    f"Look-up table {str(path)!r} gives {value} as {resource} of {row.name!r} in "
                    f"{row.format!r}. Expected a finite number of at least 0. Measure it again."
                )


def missing_rows(lut: Lut, *, names: Sequence[str], formats: Sequence[str]) -> list[str]:
    """Return 'name in format' of each pair that has no row."""
    return [
        f"{name!r} in {each!r}"
        for name in dict.fromkeys(names)
        for each in formats
        if lut.amounts(name, each) is None
    ]


def shown(missing: Sequence[str]) -> str:
    """Return the first few of a list, and how many more there are."""
    rest = len(missing) - _SHOWN
    return ", ".join(missing[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _from_csv(text: str) -> Lut:
    lines = text.splitlines(keepends=True)
    above = list(takewhile(lambda line: line.startswith("#"), lines))
    facts = dict(_facts(above))
    table = csv.DictReader(lines[len(above) :])
    columns = list(table.fieldnames or ())
    key = next((each for each in _KEYS if each in columns), None)
    if key is None or _FORMAT not in columns:
        raise ValueError(f"its columns are {columns}")
    resources = tuple(each for each in columns if each not in (*_KEYS, _FORMAT))
    rows = tuple(
        LutRow(
            name=row[key],
            format=row[_FORMAT],
            amount={name: float(row[name]) for name in resources if (row[name] or "").strip()},
        )
        for row in table
    )
    return Lut(
        device=facts.get("device", ""),
        key=key,
        rows=rows,
        source=facts.get("source", ""),
        estimate=facts.get("estimate", "no") == "yes",
        resources=resources,
    )


def _facts(lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    for line in lines:
        name, colon, value = line.removeprefix("#").partition(":")
        if colon and name.strip() in _FACTS:
            yield name.strip(), value.strip()


def _to_csv(lut: Lut) -> str:
    made = io.StringIO()
    for name, value in (
        ("device", lut.device),
        ("source", lut.source),
        ("estimate", "yes" if lut.estimate else "no"),
    ):
        made.write(f"# {name}: {' '.join(value.split())}\n")
    table = csv.writer(made, lineterminator="\n")
    table.writerow([lut.key, _FORMAT, *lut.resources])
    for row in lut.rows:
        amounts = [row.amount.get(name, "") for name in lut.resources]
        table.writerow([row.name, row.format, *amounts])
    return made.getvalue()


def _from_json(text: str) -> Lut:
    given: Mapping[str, Any] = json.loads(text)
    key = next(each for each in _KEYS if each == given["key"])
    rows = tuple(
        LutRow(
            name=str(row["name"]),
            format=str(row[_FORMAT]),
            amount={str(name): float(value) for name, value in row["amount"].items()},
        )
        for row in given["rows"]
    )
    resources = tuple(dict.fromkeys(name for row in rows for name in row.amount))
    return Lut(
        device=str(given["device"]),
        key=key,
        rows=rows,
        source=str(given.get("source", "")),
        estimate=bool(given.get("estimate", False)),
        resources=resources,
    )


def _to_json(lut: Lut) -> str:
    return json.dumps(
        {
            "device": lut.device,
            "source": lut.source,
            "estimate": lut.estimate,
            "key": lut.key,
            "rows": [
                {"name": row.name, _FORMAT: row.format, "amount": dict(row.amount)}
                for row in lut.rows
            ],
        },
        indent=1,
    )
