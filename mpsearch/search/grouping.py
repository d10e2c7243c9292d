"""Groups of layers that are judged by metrics of their own, as data."""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.resources import files
from pathlib import Path
from typing import Final, final

from pydantic import TypeAdapter, ValidationError

from mpsearch.core.graph import Layer, LayerGraph
from mpsearch.errors import UnknownLayerError, UsageError

_SHIPPED: Final = files("mpsearch.search") / "groupings"
_KIND: Final = "kind:"


@final
@dataclass(frozen=True, kw_only=True)
class LayerGroup:
    """Layers by shell-style patterns of their names, or kinds such as `kind:conv`.

    `metric` is a name in `sensitivity.METRICS`, `task` one in `tasks.TASKS`: which output of
    the model the metric looks at. None means the task of the search.
    """

    name: str
    layers: tuple[str, ...]
    metric: str = "output_error"
    task: str | None = None


@final
@dataclass(frozen=True, kw_only=True)
class _File:
    group: tuple[LayerGroup, ...]


def load_grouping(source: str | Path) -> tuple[LayerGroup, ...]:
    """Read a grouping: a TOML file, or the name of one that ships, such as "diffusion".

    Raises:
        UsageError: There is no such file, or it is malformed.
    """
    path = Path(source)
    shipped = _SHIPPED / f"{source}.toml"
    if path.suffix != ".toml" and not shipped.is_file():
        names = sorted(each.name.removesuffix(".toml") for each in _SHIPPED.iterdir())
        raise UsageError(
            f"Grouping {str(source)!r} is not known. Expected a .toml file, or one of "
            f"{', '.join(names)}. Correct the name."
        )
    try:
        text = path.read_text("utf-8") if path.suffix == ".toml" else shipped.read_text("utf-8")
        return TypeAdapter(_File).validate_python(tomllib.loads(text)).group
    except (OSError, tomllib.TOMLDecodeError, ValidationError) as error:
        raise UsageError(
            f"Grouping {str(source)!r} cannot be read: {error}. Expected tables [[group]] with "
            "name, layers and metric. Correct the file."
        ) from error


def layers_by_group(groups: Sequence[LayerGroup], graph: LayerGraph) -> dict[str, tuple[str, ...]]:
    """Return the layers of each group; a layer belongs to the first group that matches it.

    Raises:
        UsageError: Two groups have one name, or there are fewer than two.
        UnknownLayerError: A pattern matches no layer, a group is left without any, or a layer
            is in no group.
    """
    names = [group.name for group in groups]
    if len(set(names)) < len(names) or len(names) <= 1:
        raise UsageError(
            f"The groups are {names}. Expected two or more different names. Correct the grouping."
        )
    for group in groups:
        for pattern in group.layers:
            if not any(_matches(layer, pattern) for layer in graph.layers):
                raise UnknownLayerError(
                    f"Pattern {pattern!r} of group {group.name!r} matches no layer. Expected a "
                    f"name or pattern such as {graph.names[0]!r}, or a kind such as "
                    f"'kind:{graph.layers[0].op}'. `mpsearch measure` lists the names."
                )
    found: dict[str, list[str]] = {name: [] for name in names}
    for layer in graph.layers:
        first = next((group.name for group in groups if _holds(group, layer)), None)
        if first is None:
            raise UnknownLayerError(
                f"Layer {layer.name!r} is in none of the groups {names}. Expected every layer in "
                "one. Add a last group whose layers are '*'."
            )
        found[first].append(layer.name)
    empty = [name for name, members in found.items() if not members]
    if empty:
        raise UnknownLayerError(
            f"Group {empty[0]!r} is left without layers: groups before it match them all. "
            "Expected at least one. Put the narrower group first."
        )
    return {name: tuple(members) for name, members in found.items()}


def _holds(group: LayerGroup, layer: Layer) -> bool:
    return any(_matches(layer, pattern) for pattern in group.layers)


def _matches(layer: Layer, pattern: str) -> bool:
    if pattern.startswith(_KIND):
        return layer.op == pattern.removeprefix(_KIND)
    return fnmatchcase(layer.name, pattern)
