"""The demo as a newcomer runs it, in a fresh cache: time, budgets, and the best references."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic

from rich.console import Console

from benchmarks.bar import Bar, judged
from benchmarks.path.targets import TARGETS
from examples.demo import Demo
from mpsearch.errors import InfeasibleBudgetError
from mpsearch.workflow.search import SearchResult

# Half again of what the demo asks for, so that some reference plans keep it too.
_WIDE_BUDGETS = {"weight_bytes": "27%", "latency": "115% of fastest"}


def bars(*, small: bool) -> Iterator[Bar]:
    """Run the demo, then search again under budgets that reference plans keep."""
    with TemporaryDirectory() as folder:
        demo = Demo(folder=Path(folder), share=4 if small else 1, console=Console(stderr=True))
        start = monotonic()
        try:
            result = demo.search()
        except InfeasibleBudgetError as error:
            yield from _lost(str(error))
            return
        result.save(Path(folder))
        seconds = monotonic() - start
        yield judged(
            "demo wall time",
            [seconds],
            target=TARGETS["demo wall time"],
            extra={"phases": dict(result.phases), "notes": list(result.notes)},
        )
        yield _kept(result)
        yield _against_references([result, *_wider(demo)])


def _lost(reason: str) -> Iterator[Bar]:
    """Fail every bar: no plan was measured to keep the budgets, which is a figure too."""
    for name in ("demo wall time", "budgets kept when measured"):
        yield judged(name, [], target=TARGETS[name], extra={"reason": reason})


def _wider(demo: Demo) -> list[SearchResult]:
    try:
        return [demo.search_under(_WIDE_BUDGETS)]
    except InfeasibleBudgetError:
        return []


def _kept(result: SearchResult) -> Bar:
    limited = [row for row in result.verification if row.limit is not None]
    return judged(
        "budgets kept when measured",
        [float(row.measured <= row.limit) for row in limited if row.limit is not None],
        target=TARGETS["budgets kept when measured"],
        extra={row.quantity: {"measured": row.measured, "limit": row.limit} for row in limited},
    )


def _against_references(results: list[SearchResult]) -> Bar:
    """Compare the chosen plan with each reference plan measured to keep the same budgets."""
    excess = []
    for result in results:
        winner = result.tried[0].entry.quality
        assert winner is not None
        excess += [
            (winner.loss - judged_plan.loss) / winner.stderr
            for judged_plan in result.tried
            if judged_plan.is_reference and judged_plan.keeps
        ]
    name = "loss above the best reference plan"
    return judged(name, excess, target=TARGETS[name], statistic="max")
