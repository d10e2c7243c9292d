"""Compare sensitivity metrics on a model: what each costs, and what its plan really loses."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, final

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.stats import rankdata

from mpsearch.core.files import to_json, write_atomically
from mpsearch.core.plan import Budget
from mpsearch.core.progress import Progress, tracked
from mpsearch.core.tables import SensitivityTable
from mpsearch.errors import UsageError
from mpsearch.formulation import formulate, infeasible_error
from mpsearch.quant.ranges import DEFAULT_RANGE_METHOD
from mpsearch.report.metrics import write_metrics_page
from mpsearch.search.portfolio import list_prefix
from mpsearch.search.refinement import without_base
from mpsearch.search.true_loss import TrueLoss
from mpsearch.sensitivity.divergence import divergence_unit
from mpsearch.solvers import solve
from mpsearch.workflow.changes import metric_named
from mpsearch.workflow.measure import Measured, measure_prepared
from mpsearch.workflow.prepare import (
    ModelSource,
    Prepared,
    TaskSource,
    offers_products,
    prepare,
)
from mpsearch.workflow.reading import DataSource
from mpsearch.workflow.solve import resolved

_LOG = logging.getLogger("mpsearch")
# From the cheapest to the dearest, one of each kind.
DEFAULT_METRICS: Final = ("weight_error", "output_probe", "fisher_direction", "output_error")
_LIST: Final = "sqnr_list"


@final
@dataclass(frozen=True, kw_only=True)
class MetricResult:
    """One metric: its seconds, its own optimum, and what that loses when verified.

    `measured` is the mean divergence over validation samples, with its standard error.
    `formats` are the plan's, in the order of the layers.
    """

    metric: str
    seconds: float
    measured: float
    stderr: float
    formats: tuple[str, ...]
    assignment: Mapping[str, str]


@final
@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Metrics side by side, in the order asked for.

    `agreement` is the rank correlation of their scores over all pairs of layer and format
    that both know.
    """

    results: tuple[MetricResult, ...]
    agreement: Float[ndarray, "M M"]
    unit: str
    budgets: tuple[Budget, ...]
    advice: str

    def save(self, folder: Path | str) -> None:
        """Write `metrics.json` and `metrics.html` into a folder."""
        place = Path(folder)
        numbers = to_json(
            {
                "results": self.results,
                "agreement": self.agreement.tolist(),
                "unit": self.unit,
                "budgets": self.budgets,
                "advice": self.advice,
            }
        )
        write_atomically(place / "metrics.json", numbers.encode())
        write_metrics_page(
            place / "metrics.html",
            results=self.results,
            agreement=self.agreement,
            unit=self.unit,
            advice=self.advice,
        )


def compare_metrics(  # noqa: PLR0913  # as `mpsearch.search`
    model: ModelSource,
    calibration: DataSource,
    *,
    budgets: Mapping[str, str | float],
    metrics: Sequence[str] = DEFAULT_METRICS,
    task: TaskSource = "auto",
    validation: DataSource | None = None,
    formats: Sequence[str] | None = None,
    fixed: Mapping[str, str] | None = None,
    runtime: str = "simulation",
    seed: int = 0,
    cache: Path | str | None = None,
    progress: Progress | None = None,
    ranges: str = DEFAULT_RANGE_METHOD,
) -> Comparison:
    """Let each metric choose a plan under the same budgets, and verify all of them.

    See `mpsearch.search` for the arguments. Seconds are those of measuring now: what the
    cache holds already costs nothing.

    Raises:
        InfeasibleBudgetError: No plan keeps the budgets.
        UsageError: A metric is unknown or named twice.
    """
    _check(metrics)
    prepared = prepare(
        model,
        calibration,
        task=task,
        validation=validation,
        test=None,
        runtime=runtime,
        workloads=None,
        cache=cache,
        progress=progress,
        ranges=ranges,
        has_products=offers_products(formats),
    )
    measured = measure_prepared(
        prepared,
        formats=formats,
        runtime=runtime,
        threads=1,
        seed=seed,
        progress=progress,
        metric="weight_error",
        fixed=fixed,
    )
    tables, seconds = _timed(metrics, prepared=prepared, measured=measured, seed=seed)
    limits = resolved(budgets, costs=measured.costs)
    results = tuple(
        _result(
            name,
            tables[name],
            seconds=seconds[name],
            measured=measured,
            limits=limits,
            fixed=fixed or {},
            truth=_truth(prepared, measured),
        )
        for name in tracked(metrics, "verify plans", total=len(metrics), progress=progress)
    )
    agreement, unit = rank_agreement([*tables.values()]), divergence_unit(prepared.task)
    return Comparison(
        results=results, agreement=agreement, unit=unit, budgets=limits, advice=advice_of(results)
    )


def rank_agreement(tables: Sequence[SensitivityTable]) -> Float[ndarray, "M M"]:
    """Return Spearman's rank correlation of every two tables; NaN where either is constant."""
    found = np.eye(len(tables))
    for row, one in enumerate(tables):
        for column, other in enumerate(tables[:row]):
            both = np.isfinite(one.loss) & np.isfinite(other.loss)
            ranks = np.stack([rankdata(one.loss[both]), rankdata(other.loss[both])])
            with np.errstate(invalid="ignore", divide="ignore"):
                found[row, column] = found[column, row] = float(np.corrcoef(ranks)[0, 1])
    return found


def advice_of(results: Sequence[MetricResult]) -> str:
    """Say which metric found the best plan, and the cheapest one that is not worse beyond noise."""
    best = min(results, key=lambda each: each.measured)
    near = [each for each in results if each.measured <= best.measured + best.stderr]
    cheap = min(near, key=lambda each: each.seconds)
    text = f"{best.metric} found the best plan, {best.measured:.3g} after {best.seconds:.1f} s."
    if cheap.metric != best.metric:
        text += (
            f" {cheap.metric} is within one standard error of it, {cheap.measured:.3g} after "
            f"{cheap.seconds:.1f} s."
        )
    return text


def _check(metrics: Sequence[str]) -> None:
    if not metrics or len(set(metrics)) < len(metrics):
        raise UsageError(
            f"The metrics {list(metrics)} are empty or name one twice. Expected different ones. "
            "Correct the list."
        )
    for name in metrics:
        metric_named(name)


def _truth(prepared: Prepared, measured: Measured) -> TrueLoss:
    """Return what plans lose on validation data, in the unit that users know."""
    request = measured.scope.request(prepared)
    return TrueLoss(replace(request, data=prepared.validation), cache=prepared.cache)


def _timed(
    metrics: Sequence[str], *, prepared: Prepared, measured: Measured, seed: int
) -> tuple[dict[str, SensitivityTable], dict[str, float]]:
    tables, seconds = {}, {}
    for name in metrics:
        start = time.monotonic()
        tables[name] = measured.scope.table(name, prepared=prepared, seed=seed)
        seconds[name] = time.monotonic() - start
        _LOG.info("Metric %s took %.1f s.", name, seconds[name])
    return tables, seconds


def _result(
    name: str,
    table: SensitivityTable,
    *,
    seconds: float,
    measured: Measured,
    limits: tuple[Budget, ...],
    fixed: Mapping[str, str],
    truth: TrueLoss,
) -> MetricResult:
    formulation = formulate(table, measured.costs[0], budgets=limits, fixed=fixed)
    solution = solve(formulation.problem)
    choice = list_prefix(formulation.problem) if name == _LIST else solution.choice
    if choice is None:
        raise infeasible_error([solution], budgets=limits)
    assignment = formulation.assignment(np.asarray(choice))
    losses = truth.per_sample(without_base(assignment))
    spread = float(losses.std(ddof=1) / np.sqrt(len(losses))) if len(losses) > 1 else float("nan")
    return MetricResult(
        metric=name,
        seconds=seconds,
        measured=float(losses.mean()),
        stderr=spread,
        formats=tuple(assignment[layer] for layer in table.layers),
        assignment=assignment,
    )
