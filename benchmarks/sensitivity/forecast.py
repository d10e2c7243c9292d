"""Forecasts of squared output error against forward passes on samples that scored nothing."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Final, TypeAlias

import numpy as np
import torch
from jaxtyping import Float32, Float64
from numpy import ndarray

from benchmarks.bar import Bar, judged
from benchmarks.sensitivity.plans import FORMATS, mean_bits
from benchmarks.sensitivity.subject import ready
from benchmarks.sensitivity.targets import TARGETS
from benchmarks.weight_costs import weight_costs
from benchmarks.zoo.anywhere import case_named
from benchmarks.zoo.case import ZooCase
from mpsearch.core.plan import Plan
from mpsearch.core.tables import SensitivityTable
from mpsearch.execution import quantised, run
from mpsearch.sensitivity import METRICS
from mpsearch.tasks import Batch
from mpsearch.workflow.prepare import Prepared
from mpsearch.workflow.solve import solve_tables

_BAR: Final = "forecast of squared output error"
_MODELS: Final = ("cifar10_resnet20", "cifar10_resnet32", "stories260k")
# Samples that score and samples that are held out: images, documents.
_SAMPLES: Final[Mapping[str, tuple[int, int]]] = {"stories260k": (48, 48)}
_IMAGES: Final = (512, 512)
_SMALL: Final = 24
_LOWEST, _HIGHEST = 3.5, 6.0
_PLANS: Final = 20
_SMALL_PLANS: Final = 3
# Losses are multiplied by exp(normal) of this deviation before each plan is solved: plans near
# the optimum that no one has chosen.
_SHAKE: Final = 0.5

_Forecast: TypeAlias = Callable[[Mapping[str, str]], float]


def bars(*, small: bool) -> Iterator[Bar]:
    """Score, draw plans over the whole range of budgets, and run each on held-out samples."""
    for name in _MODELS[:1] if small else _MODELS:
        scored, held = (_SMALL, _SMALL) if small else _SAMPLES.get(name, _IMAGES)
        case = case_named(name)
        with ready(case, samples=scored, held=held) as prepared:
            yield from _of_model(case, prepared, count=_SMALL_PLANS if small else _PLANS)


def _of_model(case: ZooCase, prepared: Prepared, *, count: int) -> Iterator[Bar]:
    tables = {name: _table(prepared, name) for name in ("output_error", "output_probe")}
    plans = _plans(case, prepared, table=tables["output_error"], count=count)
    measured = _measured(prepared, plans)
    forecasts: dict[str, _Forecast] = {
        "sum of output_error": lambda plan: _sum(tables["output_error"], plan),
        "interactions of output_probe": lambda plan: _interactions(tables["output_probe"], plan),
    }
    for name, forecast in forecasts.items():
        ratios = [
            forecast(plan.assignment) / found.mean()
            for plan, found in zip(plans, measured, strict=True)
        ]
        yield judged(
            f"{case.name}: {_BAR}, {name}, mean distance",
            [100 * fmean(abs(ratio - 1) for ratio in ratios)],
            target=TARGETS[_BAR],
            extra={
                "forecast by measured": dict(zip(_budgets(count), ratios, strict=True)),
                "standard error of the measured, mean": 100
                * fmean(found.std() / found.mean() / len(found) ** 0.5 for found in measured),
                "scored": prepared.calibration.samples,
                "held out": prepared.validation.samples,
            },
        )


def _table(prepared: Prepared, metric: str) -> SensitivityTable:
    return METRICS[metric].measure(
        prepared.traced,
        task=prepared.task,
        data=prepared.calibration,
        formats=FORMATS,
        cache=prepared.cache,
    )


def _budgets(count: int) -> list[float]:
    return [round(each, 2) for each in np.linspace(_LOWEST, _HIGHEST, count).tolist()]


def _plans(case: ZooCase, prepared: Prepared, *, table: SensitivityTable, count: int) -> list[Plan]:
    """Return one plan per budget, the optimum of losses that were shaken at random."""
    random = np.random.default_rng(0)
    costs = [weight_costs(prepared.traced.graph, formats=FORMATS)]
    pinned = dict.fromkeys(case.fixed, "fp32")
    found = []
    for budget in _budgets(count):
        factors = np.exp(_SHAKE * random.standard_normal(table.loss.shape))
        shaken = replace(table, loss=table.loss * factors)
        limit = {"weight_bits": mean_bits(case, budget=budget)}
        found.append(solve_tables(shaken, costs, budgets=limit, fixed=pinned).plan)
    return found


def _measured(prepared: Prepared, plans: Sequence[Plan]) -> list[Float64[ndarray, " S"]]:
    """Return the squared error of each held-out sample under each plan."""
    found: list[list[ndarray]] = [[] for _ in plans]
    for batch in prepared.validation:
        reference = _outputs(prepared, batch)
        for plan, errors in zip(plans, found, strict=True):
            with quantised(prepared.traced, plan) as deployed:
                outputs = prepared.task.outputs(run(deployed, batch), batch)
            errors.append(prepared.task.squared_error(reference, outputs, batch).double().numpy())
    return [np.concatenate(errors) for errors in found]


def _outputs(prepared: Prepared, batch: Batch) -> torch.Tensor:
    return prepared.task.outputs(run(prepared.traced, batch), batch)


def _places(table: SensitivityTable, plan: Mapping[str, str]) -> list[tuple[int, int]]:
    return [
        (table.layers.index(layer), table.formats.index(name))
        for layer, name in plan.items()
        if name in table.formats
    ]


def _sum(table: SensitivityTable, plan: Mapping[str, str]) -> float:
    return float(sum(table.loss[place] for place in _places(table, plan)))


def _interactions(table: SensitivityTable, plan: Mapping[str, str]) -> float:
    """Return the mean square of the signed numbers, summed over layers first."""
    assert table.numbers is not None
    rows, columns = zip(*_places(table, plan), strict=True)
    chosen: Float32[ndarray, "N L"] = table.numbers[:, list(rows), list(columns)]
    return float(np.square(chosen.astype(np.float64).sum(axis=1)).mean())
