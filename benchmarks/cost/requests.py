"""Random requests answered from stored tables: each plan built, counted, and timed where asked.

What the search does, less the data: a plan's loss is what the tables forecast, so that a hundred
requests take minutes. Bytes are counted in the file that was built, latency is timed in the same
rounds as the references.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, final

import numpy as np
from numpy.random import Generator

from benchmarks.cost.cases import Case, cases, small_case
from benchmarks.cost.trial import ANY_RANGE, profile_case
from mpsearch.core.formats import format_named
from mpsearch.core.graph import LayerGraph
from mpsearch.core.hardware import Resource
from mpsearch.core.plan import Plan
from mpsearch.core.progress import Progress
from mpsearch.core.tables import CostTable, SensitivityTable
from mpsearch.cost import time_together
from mpsearch.cost.whole_plans import example_inputs
from mpsearch.errors import DeploymentError, InfeasibleBudgetError
from mpsearch.export import export_plan, weight_bytes
from mpsearch.formulation import parse_budgets, plan_of, resolve_budgets, resource_of
from mpsearch.search import Judged, SearchSpace, search_rounds
from mpsearch.verification.contest import Entry, Latency
from mpsearch.verification.deployment import Deployment
from mpsearch.verification.quality import Quality
from mpsearch.workflow.solve import yardsticks_of

_SEED: Final = 7
_FULL: Final = 100
_SMALL: Final = 4
_SECONDS_PER_PLAN: Final = 0.5
_RELATIVE_ERROR: Final = 0.008
_NS: Final = 1e9
_INPUT_BITS_COST: Final = 2e-3  # what 8-bit inputs lose, beside weights of 8 bits


@final
@dataclass(frozen=True, kw_only=True)
class Answer:
    """What became of a request: whether it holds, and whether no fitting reference is better."""

    request: Mapping[str, str]
    outcome: str
    holds: bool
    is_best: bool
    contests: int = 0


@final
@dataclass(kw_only=True)
class TimedContest:
    """Builds plans, counts their bytes, and times them against each other where asked."""

    case: Case
    is_timed: bool
    generator: Generator
    held: int = 0

    def hold(
        self,
        plans: Sequence[Plan],
        *,
        is_timed: bool = True,
        progress: Progress | None = None,
    ) -> tuple[Entry, ...]:
        """Return one entry per plan; its loss is the forecast."""
        assert progress is None
        self.held += 1
        built = [self._built(plan) for plan in plans]
        timed = [entry.deployment for entry in built if entry.deployment is not None]
        if not (is_timed and self.is_timed and timed):
            return tuple(built)
        executables = [each.executable for each in timed if each.executable is not None]
        timings = time_together(
            executables,
            relative_error=_RELATIVE_ERROR,
            time_limit_seconds=_SECONDS_PER_PLAN * len(executables),
            generator=self.generator,
        )
        latencies = (
            {"seconds": float(seconds), "stderr": float(stderr)}
            for seconds, stderr in zip(timings.seconds, timings.stderr, strict=True)
        )
        return tuple(
            entry if entry.deployment is None else _timed(entry, **next(latencies))
            for entry in built
        )

    def _built(self, plan: Plan) -> Entry:
        try:
            model = export_plan(self.case.base, plan)
            executable = self.case.runtime.build(
                model, settings=plan.settings, workload=self.case.workload
            )
            executable.assert_kernels(plan)
        except DeploymentError as error:
            return Entry(plan=plan, broken=str(error))
        executable.run(example_inputs(self.case.base, self.case.workload))
        deployment = Deployment(
            plan=plan,
            forward=lambda batch: batch,
            model=model,
            executable=executable,
            weight_bytes=weight_bytes(model),
        )
        quality = Quality(loss=plan.forecast["loss"], stderr=0.0, samples=1)
        return Entry(plan=plan, deployment=deployment, quality=quality)


def _timed(entry: Entry, *, seconds: float, stderr: float) -> Entry:
    latency = Latency(median_ns=seconds * _NS, stderr_ns=stderr * _NS, repeatability=0.0)
    return replace(entry, latency=latency)


def answers(*, small: bool) -> list[Answer]:
    """Answer random requests, in turn for each model and runtime."""
    generator = np.random.default_rng(_SEED)
    spaces = [(group, _space(group)) for group in _grouped(small=small)]
    count = _SMALL if small else _FULL
    return [
        _answer(*spaces[place % len(spaces)], place=place // len(spaces), generator=generator)
        for place in range(count)
    ]


def _grouped(*, small: bool) -> list[tuple[Case, ...]]:
    """Return the cases by model and runtime: those of different bases belong together."""
    found: dict[tuple[str, str], list[Case]] = {}
    for case in [small_case()] if small else cases():
        found.setdefault((case.name, case.runtime.name), []).append(case)
    return [tuple(group) for group in found.values()]


def _space(group: Sequence[Case]) -> SearchSpace:
    costs = tuple(profile_case(case) for case in group)
    return SearchSpace(sensitivity=_losses(group[0].graph, costs=costs), costs=costs)


def _losses(graph: LayerGraph, *, costs: Sequence[CostTable]) -> SensitivityTable:
    """Return made-up losses: a share of the layer's size, the larger the fewer its bits."""
    generator = np.random.default_rng(_SEED)
    formats = tuple(
        dict.fromkeys(
            name for cost in costs for name in cost.formats if not format_named(name).is_floating
        )
    )
    weight = generator.lognormal(sigma=1.0, size=len(graph.layers))
    bits = np.array([format_named(name).weight.bits for name in formats])
    inputs = np.array([format_named(name).activation is not None for name in formats])
    harm = 4.0**-bits + _INPUT_BITS_COST * inputs
    loss = weight[:, None] * harm[None, :]
    return SensitivityTable(
        layers=graph.names,
        formats=formats,
        loss=loss,
        stderr=np.zeros_like(loss),
        metric="made up",
        unit="none",
        base_loss={"bf16": float(loss.mean())},
        quantizers=dict.fromkeys(graph.names, ANY_RANGE),
    )


def drawn(*, place: int, generator: Generator) -> dict[str, str]:
    """Return budgets at random: on latency in each second request, on what is counted in most.

    Some are out of reach on purpose.
    """
    request: dict[str, str] = {}
    if place % 2 == 0:
        request["latency"] = f"{generator.uniform(90, 300):.1f}% of fastest"
    if place % 2 == 1 or generator.random() < 1 / 2:
        request["weight_bytes"] = f"{generator.uniform(8, 105):.1f}%"
    if generator.random() < 1 / 4:
        request["bops"] = f"{generator.uniform(4, 105):.1f}%"
    return request


def _answer(
    group: Sequence[Case], space: SearchSpace, *, place: int, generator: Generator
) -> Answer:
    request = drawn(place=place, generator=generator)
    yardsticks = yardsticks_of(space.costs)
    contest = TimedContest(case=group[0], is_timed="latency" in request, generator=generator)
    try:
        tried = search_rounds(
            space, contest=contest, parsed=parse_budgets(request), yardsticks=yardsticks
        )
    except InfeasibleBudgetError as error:
        told = all(np.isfinite(value) for value in error.smallest.values())
        return Answer(
            request=request,
            outcome="infeasible",
            holds=bool(error.smallest) and told,
            is_best=not _fitting_references(space, request=request),
            contests=contest.held,
        )
    return Answer(
        request=request,
        outcome="planned",
        holds=_holds(tried[0], space=space),
        is_best=_is_best(tried, space=space, request=request),
        contests=contest.held,
    )


def _holds(winner: Judged, *, space: SearchSpace) -> bool:
    """Return whether each budget is kept: bytes as in the file, operations counted again."""
    (cost,) = (each for each in space.costs if each.base == winner.entry.plan.base)
    counted = cost.spend(winner.entry.plan.assignment)
    spent = {name: float(value) for name, value in counted.items()} | winner.entry.amount
    in_file = spent[Resource.WEIGHT_BYTES] == counted[Resource.WEIGHT_BYTES]
    return in_file and all(spent[resource_of(each)] <= each.limit for each in winner.budgets)


def _is_best(tried: Sequence[Judged], *, space: SearchSpace, request: Mapping[str, str]) -> bool:
    """Return whether no reference that fits loses less: measured ones, else counted ones."""
    loss = tried[0].loss
    if "latency" in request:
        return all(loss <= each.loss for each in tried if each.is_reference and each.keeps)
    return all(loss <= each for each in _fitting_references(space, request=request))


def _fitting_references(space: SearchSpace, *, request: Mapping[str, str]) -> list[float]:
    """Return the losses of references that keep the budgets as they were profiled."""
    limits = resolve_budgets(parse_budgets(request), yardsticks=yardsticks_of(space.costs))
    found = []
    for cost in space.costs:
        for each in cost.measured:
            plan = plan_of(
                space.sensitivity, cost, assignment=each.assignment, budgets=limits, origin=""
            )
            spent = {**plan.forecast, **each.amount}
            fits = all(spent[resource_of(limit)] <= limit.limit for limit in limits)
            if each.role == "reference" and fits:
                found.append(plan.forecast["loss"])
    return found
