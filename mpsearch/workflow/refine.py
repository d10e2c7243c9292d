"""Plans beyond the tables' optimum: a portfolio of metrics, verified and refined by forwards."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, final

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from mpsearch.core.placement import ground_told
from mpsearch.core.plan import Budget, Plan
from mpsearch.core.progress import Progress
from mpsearch.core.tables import CostTable, SensitivityTable
from mpsearch.formulation import plan_of
from mpsearch.search import SearchSpace
from mpsearch.search.decoupled import decoupled
from mpsearch.search.draws import drawn_until_stable
from mpsearch.search.grouping import LayerGroup, layers_by_group
from mpsearch.search.portfolio import interacting_choice, portfolio
from mpsearch.search.refinement import Allowance, Refined, Refinement, Step, pass_forwards
from mpsearch.search.true_loss import TrueLoss
from mpsearch.sensitivity import OutputProbe
from mpsearch.workflow.changes import divergence_table
from mpsearch.workflow.decoupling import GroupTables, measure_groups
from mpsearch.workflow.effort import (
    Effort,
    effort_told,
    exact_pass_seconds,
    metric_of,
    most_draws,
    probe_draws,
    probe_forwards,
)
from mpsearch.workflow.measure import (
    Measured,
    default_formats,
    measure_prepared,
    runtime_named,
)
from mpsearch.workflow.prepare import Prepared

# Plans handed on to be built.
_HANDED_ON: Final = 2


@final
class Suggester:
    """Suggests plans for one problem after another; `refined` keeps how they came about."""

    def __init__(
        self,
        prepared: Prepared,
        measured: Measured,
        *,
        fixed: Mapping[str, str],
        effort: Effort,
        seed: int,
        progress: Progress | None = None,
        groups: Sequence[LayerGroup] = (),
    ) -> None:
        self._groups = tuple(groups)
        self._group_tables: GroupTables | None = None
        self._prepared, self._scope = prepared, measured.scope
        self._table, self._changes = measured.sensitivity, measured.changes
        self._fixed, self._effort = fixed, effort
        self._seed, self._progress = seed, progress
        self._tables: dict[str, SensitivityTable] | None = None
        self._draws = probe_draws(prepared, effort=effort, formats=self._scope.formats)
        self.refined: list[Refined] = []

    @property
    def steps(self) -> tuple[Step, ...]:
        """Return every verified plan, in order."""
        return tuple(step for refined in self.refined for step in refined.steps)

    def __call__(self, cost: CostTable, budgets: Sequence[Budget]) -> tuple[Plan, ...]:
        """Return the best plans that were verified, the best first; none where none fits."""
        proposals = portfolio(
            self._all_tables(cost, budgets),
            cost,
            budgets=budgets,
            fixed=self._fixed,
            generator=np.random.default_rng(self._seed),
        )
        if proposals is None:
            return ()
        if self._groups:
            by_group = self._by_group(cost, budgets)
            proposals = replace(proposals, choices={**by_group, **proposals.choices})
        request = self._scope.request(self._prepared)
        allowance = Allowance(
            forwards=self._effort.passes * pass_forwards(request.traced, request.pairs),
            seconds=self._effort.seconds,
        )
        refined = Refinement(
            proposals.formulation,
            request=request,
            truth=TrueLoss(
                replace(request, data=self._prepared.validation), cache=self._prepared.cache
            ),
            allowance=allowance,
            spent=self._spent,
            cache=self._prepared.cache,
            progress=self._progress,
        ).run(proposals.choices, changes=self._changes)
        self.refined.append(refined)
        ground = ground_told(cost.base, cost.placement)
        return tuple(
            plan_of(
                self._table,
                cost,
                assignment=assignment,
                budgets=budgets,
                origin=f"{origin} on {ground}, verified best of {len(refined.steps)}",
            )
            for assignment, origin in zip(
                refined.assignments[:_HANDED_ON], refined.origins, strict=False
            )
        )

    def _by_group(
        self, cost: CostTable, budgets: Sequence[Budget]
    ) -> Mapping[str, Int[ndarray, " D"]]:
        """Return what the groups' own metrics choose, measured at the first need."""
        if self._group_tables is None:
            self._group_tables = measure_groups(
                self._groups,
                prepared=self._prepared,
                scope=self._scope,
                seed=self._seed,
                progress=self._progress,
            )
        found = decoupled(
            self._group_tables.tables,
            members=self._group_tables.members,
            cost=cost,
            budgets=budgets,
            fixed=self._fixed,
        )
        return {} if found is None else found.choices

    @property
    def _spent(self) -> float:
        """Return what random directions cost, in forwards."""
        if not self._effort.has_probe:
            return 0.0
        return probe_forwards(self._draws, formats=len(self._scope.formats))

    def _all_tables(
        self, cost: CostTable, budgets: Sequence[Budget]
    ) -> dict[str, SensitivityTable]:
        """Return the tables to propose from, measured at the first need."""
        if self._tables is None:
            found = {self._table.metric: self._table}
            found["weight_error"] = self._measured("weight_error")
            if self._changes is not None:
                found["divergence"] = divergence_table(
                    self._changes, scope=self._scope, seed=self._seed
                )
                if self._effort.has_probe:
                    found["output_probe"] = self._probe(cost, budgets)
            self._tables = found
        return self._tables

    def _probe(self, cost: CostTable, budgets: Sequence[Budget]) -> SensitivityTable:
        """Measure random directions until the plan that they choose is stable."""
        drawn = drawn_until_stable(
            lambda draws: self._measured(OutputProbe(draws=draws)),
            plan_of=lambda table: interacting_choice(
                table, cost, budgets=budgets, fixed=self._fixed, seed=self._seed
            ),
            first=self._draws,
            most=most_draws(self._prepared, effort=self._effort, formats=self._scope.formats),
        )
        self._draws = drawn.draws
        return drawn.table

    def _measured(self, metric: str | OutputProbe) -> SensitivityTable:
        return self._scope.table(
            metric, prepared=self._prepared, seed=self._seed, progress=self._progress
        )


@final
@dataclass(frozen=True, kw_only=True)
class Ground:
    """What a search stands on: everything measured, and where plans are proposed from."""

    measured: Measured
    space: SearchSpace
    suggester: Suggester
    notes: tuple[str, ...] = ()


def explore(
    prepared: Prepared,
    *,
    formats: Sequence[str] | None,
    runtime: str,
    threads: int,
    seed: int,
    progress: Progress | None,
    fixed: Mapping[str, str],
    solver: str,
    effort: Effort,
    groups: Sequence[LayerGroup] = (),
) -> Ground:
    """Measure as `effort` allows, and make ready to propose.

    Raises:
        UnknownLayerError: Groups do not fit the model; told before anything is measured.
    """
    if groups:
        layers_by_group(groups, prepared.traced.graph)
    if effort.seconds < float("inf"):
        effort = effort.within(exact_pass_seconds(prepared, formats=formats, runtime=runtime))
    engine = runtime_named(runtime)
    measured = measure_prepared(
        prepared,
        formats=formats,
        runtime=runtime,
        threads=threads,
        seed=seed,
        progress=progress,
        metric=metric_of(
            effort, prepared=prepared, formats=formats or default_formats(engine.name)
        ),
        keeps_changes=effort.is_exact,
        fixed=fixed,
    )
    suggester = Suggester(
        prepared,
        measured,
        fixed=fixed,
        effort=effort,
        seed=seed,
        progress=progress,
        groups=groups,
    )
    space = SearchSpace(
        sensitivity=measured.sensitivity,
        costs=measured.costs,
        fixed=fixed,
        solver=solver,
        suggest=suggester,
    )
    notes = (effort_told(effort, measured=measured, prepared=prepared),)
    return Ground(measured=measured, space=space, suggester=suggester, notes=notes)


def rounds_told(refined: Sequence[Refined]) -> tuple[str, ...]:
    """Say in a sentence for each round what was tried and what it gained."""
    told = []
    for each in refined:
        best = float("inf")
        for number in sorted({step.round for step in each.steps}):
            steps = [step for step in each.steps if step.round == number]
            least = min(steps, key=lambda step: step.measured)
            what = "Candidates" if number == 0 else f"Round {number}"
            gain = "better than" if least.measured < best else "not below"
            before = "" if number == 0 else f", {gain} {best:.4g}"
            told.append(
                f"{what}: {len(steps)} plans verified by true forwards, the best at "
                f"{least.measured:.4g}{before} ({least.origin})."
            )
            best = min(best, least.measured)
        if each.temperature > 1:
            told.append(
                f"Plans were judged with logits divided by {each.temperature:g}: undivided, a "
                "handful of samples held nearly all of the divergence."
            )
        told.append(
            f"The search ended after {each.steps[-1].forwards:.0f} forwards: {each.stopped}."
        )
    return tuple(told)
