"""Each group of layers measured by its own metric, on its own output of the model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias, final

from mpsearch.core.progress import Progress
from mpsearch.core.tables import SensitivityTable
from mpsearch.errors import UsageError
from mpsearch.search.grouping import LayerGroup, layers_by_group, load_grouping
from mpsearch.sensitivity import METRICS
from mpsearch.tasks import TASKS
from mpsearch.workflow.changes import Scope
from mpsearch.workflow.prepare import Prepared

# A TOML file, the name of a grouping that ships, or the groups themselves.
GroupingSource: TypeAlias = str | Path | Sequence[LayerGroup]


@final
@dataclass(frozen=True, kw_only=True)
class GroupTables:
    """The layers of each group, and their losses in the unit of the group's metric."""

    members: Mapping[str, tuple[str, ...]]
    tables: Mapping[str, SensitivityTable]


def read_groups(source: GroupingSource | None) -> tuple[LayerGroup, ...]:
    """Return the groups that a user asks for, none where there are none.

    Raises:
        UsageError: A file is malformed, or a metric or task is unknown.
    """
    if source is None:
        return ()
    groups = load_grouping(source) if isinstance(source, str | Path) else tuple(source)
    for group in groups:
        for kind, name, known in (
            ("metric", group.metric, METRICS),
            ("task", group.task, TASKS),
        ):
            if name is not None and name not in known:
                raise UsageError(
                    f"Group {group.name!r} has the {kind} {name!r}, which is unknown. Expected one "
                    f"of {', '.join(known)}. Correct the grouping."
                )
    return groups


def measure_groups(
    groups: Sequence[LayerGroup],
    *,
    prepared: Prepared,
    scope: Scope,
    seed: int,
    progress: Progress | None = None,
) -> GroupTables:
    """Measure each group's layers only, by its metric.

    Raises:
        UnknownLayerError: A pattern matches no layer, or a layer is in no group.
    """
    members = layers_by_group(groups, prepared.traced.graph)
    tables = {}
    for group in groups:
        own = {name: scope.offered[name] for name in members[group.name] if name in scope.offered}
        judged = prepared if group.task is None else replace(prepared, task=TASKS[group.task])
        tables[group.name] = replace(scope, offered=own).table(
            group.metric, prepared=judged, seed=seed, progress=progress
        )
    return GroupTables(members=members, tables=tables)
