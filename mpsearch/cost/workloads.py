"""One cost table of several workloads: each with latency entries, and a budget, of its own."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mpsearch.core.hardware import Resource, Workload, latency_key
from mpsearch.core.tables import CostTable, MeasuredPlan
from mpsearch.cost.profile import profile
from mpsearch.errors import DataError

_LATENCY = str(Resource.LATENCY_NS)
_OF_LATENCY = "latency_"  # what is measured per workload: time, its standard error, its tail


def profile_workloads(*, workloads: Sequence[Workload], **settings: Any) -> CostTable:  # noqa: ANN401 - the arguments of `profile`
    """Profile a model at several input shapes; the arguments are those of `profile`.

    Of one workload it is the table of `profile`. Of several, `latency_ns` is that of the first,
    and `latency_ns@NAME` that of each; whatever needs no device is the same for all.

    Raises:
        DataError: There is no workload, or two have one name.
    """
    names = [workload.name for workload in workloads]
    if not names or len(set(names)) != len(names):
        raise DataError(
            f"The workloads are called {names}. Expected at least one, each with a name of its "
            "own. Rename one of them."
        )
    return merged([profile(workload=workload, **settings) for workload in workloads])


def merged(tables: Sequence[CostTable]) -> CostTable:
    """Return the first table with the latencies of all, each under the name of its workload."""
    first = tables[0]
    if len(tables) == 1:
        return first
    settings = {key: value for table in tables for key, value in table.settings.items()}
    return replace(
        first,
        amount={**first.amount, **_latencies(tables, "amount")},
        constant={**first.constant, **_latencies(tables, "constant")},
        edge_amount={**first.edge_amount, **_latencies(tables, "edge_amount")},
        calibration={**first.calibration, **_latencies(tables, "calibration")},
        measured=_measured(tables),
        settings=settings,
        workloads=tuple(workload for table in tables for workload in table.workloads),
    )


def _latencies(tables: Sequence[CostTable], field: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for table in tables:
        values: Mapping[str, Any] = getattr(table, field)
        if _LATENCY in values:
            found[latency_key(table.workloads[0].name)] = values[_LATENCY]
    return found


def _measured(tables: Sequence[CostTable]) -> tuple[MeasuredPlan, ...]:
    """Return each plan that was measured at all workloads, with what it took of each."""
    known: dict[tuple[tuple[str, str], ...], MeasuredPlan] = {}
    counts: dict[tuple[tuple[str, str], ...], int] = {}
    for table in tables:
        name = table.workloads[0].name
        for plan in table.measured:
            key = tuple(sorted(plan.assignment.items()))
            renamed = {
                f"{what}@{name}": value
                for what, value in plan.amount.items()
                if what.startswith(_OF_LATENCY)
            }
            base = known.get(key, plan)
            known[key] = replace(base, amount={**base.amount, **renamed})
            counts[key] = counts.get(key, 0) + 1
    return tuple(plan for key, plan in known.items() if counts[key] == len(tables))
