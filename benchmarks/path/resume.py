"""kill -9 at random moments of the sensitivity pass: what is lost, and is the table the same."""

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic, sleep

import numpy as np

from benchmarks.bar import Bar, judged
from benchmarks.path import minilm
from benchmarks.path.targets import TARGETS
from mpsearch.core.files import load_table
from mpsearch.core.hardware import Support, Workload
from mpsearch.core.plan import Plan
from mpsearch.core.tables import SensitivityTable
from mpsearch.cost import profile
from mpsearch.runtimes import RUNTIMES
from mpsearch.workflow.solve import solve_tables

_TWICE = "layers measured twice after kill -9"
_SAME = "resumed tables bit-identical"


def bars(*, small: bool) -> Iterator[Bar]:
    """Kill and start again, ten times (twice in the small form), then let it end."""
    kills, sentences = (2, 4) if small else (10, 32)
    random = np.random.default_rng(0)
    with TemporaryDirectory() as name:
        folder = Path(name)
        _finish(folder, run="whole", sentences=sentences)
        total = len((folder / "whole.journal").read_text().splitlines()) // 2
        # Moments spread over the pass: after so many layers are done, plus a random delay.
        twice = []
        for done in sorted(random.choice(total, size=kills, replace=False)):
            known = _keys(folder, event="begin")
            _kill_after(folder, layers=int(done), delay=random.uniform(0, 0.2), sentences=sentences)
            twice.append(_repeats(folder, known=known))
        known = _keys(folder, event="begin")
        _finish(folder, run="killed", sentences=sentences)
        twice.append(_repeats(folder, known=known))
        tables = [
            load_table(folder / f"{run}.npz", SensitivityTable) for run in ("whole", "killed")
        ]
    yield judged(
        _TWICE,
        twice,
        target=TARGETS[_TWICE],
        statistic="max",
        extra={"kills": kills, "layers": total},
    )
    same = all(
        np.array_equal(getattr(tables[0], array), getattr(tables[1], array), equal_nan=True)
        for array in ("loss", "stderr")
    )
    plans = [_planned(table).assignment for table in tables]
    same &= plans[0] == plans[1]
    extra = {"plan from the same costs is the same": plans[0] == plans[1]}
    yield judged(_SAME, [float(same)], target=TARGETS[_SAME], extra=extra)


def _planned(table: SensitivityTable) -> Plan:
    """Return the plan of six bits a weight, with costs counted from shapes."""
    graph = minilm.traced().graph
    formats = ("fp32", *table.formats)
    offered = np.isfinite(table.loss)
    support = {
        layer: {
            name: Support.NATIVE
            for name, is_offered in zip(formats, (True, *row), strict=True)
            if is_offered
        }
        for layer, row in zip(graph.names, offered, strict=True)
    }
    cost = profile(
        None,
        graph,
        runtime=RUNTIMES["simulation"],
        formats=formats,
        base_precision="fp32",
        workload=Workload(name="none", shapes={}),
        support=support,
    )
    return solve_tables(table, [cost], budgets={"weight_bits": "6"}).plan


def _command(folder: Path, *, run: str, sentences: int) -> list[str]:
    places = [str(folder / run), str(folder / f"{run}.journal"), str(folder / f"{run}.npz")]
    return [sys.executable, "-m", "benchmarks.path.interrupted", *places, str(sentences)]


def _finish(folder: Path, *, run: str, sentences: int) -> None:
    subprocess.run(_command(folder, run=run, sentences=sentences), check=True)


def _kill_after(folder: Path, *, layers: int, delay: float, sentences: int) -> None:
    """Start, wait until that many layers are done in all, wait a little more, and kill."""
    with subprocess.Popen(_command(folder, run="killed", sentences=sentences)) as process:
        deadline = monotonic() + 300
        while len(_keys(folder, event="end")) < layers and process.poll() is None:
            assert monotonic() < deadline, "the pass hangs"
            sleep(0.005)
        sleep(delay)
        process.kill()


def _keys(folder: Path, *, event: str) -> list[str]:
    journal = folder / "killed.journal"
    if not journal.exists():
        return []
    lines = (line.split() for line in journal.read_text().splitlines())
    return [key for kind, key in lines if kind == event]


def _repeats(folder: Path, *, known: list[str]) -> float:
    """Return how many layers were begun again since `known` were begun."""
    begun = Counter(_keys(folder, event="begin")) - Counter(known)
    return float(sum(1 for key in begun if key in set(known)))
