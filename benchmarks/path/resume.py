"""kill -9 at random moments of the sensitivity pass: what is lost, and is the table the same."""

import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.bar import Bar, judged
from benchmarks.killed import Trial
from benchmarks.path import minilm
from benchmarks.path.targets import TARGETS
from benchmarks.weight_costs import weight_costs
from mpsearch.core.plan import Plan
from mpsearch.core.tables import SensitivityTable
from mpsearch.workflow.solve import solve_tables

_TWICE = "entries measured twice after kill -9"
_SAME = "resumed tables bit-identical"


def bars(*, small: bool) -> Iterator[Bar]:
    """Kill and start again, ten times (twice in the small form), then let it end."""
    kills, sentences = (2, 4) if small else (10, 32)
    with TemporaryDirectory() as name:
        command = (sys.executable, "-m", "benchmarks.path.interrupted", str(sentences))
        found = Trial(command=command, folder=Path(name)).outcome(kills=kills)
    yield judged(
        _TWICE,
        found.twice,
        target=TARGETS[_TWICE],
        statistic="max",
        extra={"kills": kills, "entries": found.entries},
    )
    same = _planned(found.whole).assignment == _planned(found.resumed).assignment
    yield judged(
        _SAME,
        [float(found.is_same and same)],
        target=TARGETS[_SAME],
        extra={"plan from the same costs is the same": same},
    )


def _planned(table: SensitivityTable) -> Plan:
    """Return the plan of six bits a weight, with costs counted from shapes."""
    costs = weight_costs(minilm.traced().graph, formats=table.formats)
    return solve_tables(table, [costs], budgets={"weight_bits": "6"}).plan
