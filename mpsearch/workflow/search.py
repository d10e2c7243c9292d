"""Search a plan: measure, solve, build, time head to head, and prove the winner."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Final, final

import numpy as np
import onnx

from mpsearch.core.files import save_plan, to_json, write_atomically
from mpsearch.core.graph import LayerGraph
from mpsearch.core.plan import Plan
from mpsearch.core.progress import Progress
from mpsearch.core.tables import CostTable, SensitivityTable
from mpsearch.core.verification import Verification
from mpsearch.quant.ranges import DEFAULT_RANGE_METHOD
from mpsearch.report import tried_plan
from mpsearch.search import Judged
from mpsearch.search.refinement import Step
from mpsearch.search.repair import repairs_told
from mpsearch.search.stability import flip_shares, flips_told
from mpsearch.verification.contest import Contest
from mpsearch.verification.proof import prove
from mpsearch.verification.quality import reference_outputs
from mpsearch.workflow.decoupling import GroupingSource, read_groups
from mpsearch.workflow.device_names import runtime_on
from mpsearch.workflow.effort import DEFAULT_EFFORT, Effort
from mpsearch.workflow.measure import Measured
from mpsearch.workflow.phases import PhaseClock
from mpsearch.workflow.prepare import (
    JOINTLY,
    ModelSource,
    Prepared,
    TaskSource,
    offers_products,
    prepare,
)
from mpsearch.workflow.reading import DataSource
from mpsearch.workflow.refine import Ground, explore, rounds_told
from mpsearch.workflow.report import Summary, report
from mpsearch.workflow.solve import FrontPoint
from mpsearch.workflow.wanted import Found, Wanted
from mpsearch.workflow.workloads import WorkloadRequest

_FRONT_POINTS: Final = 16
# Below this share two timings of one plan are not worth a word.
_NOTABLE_DRIFT: Final = 0.05


@final
@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """The plan that was measured best, its proof, and everything measured on the way.

    `tried` holds every plan that was built, the winner first. `model` is the executable
    ONNX file of the plan, None under runtime `simulation`. `phases` are seconds by phase,
    `trace` is every plan that a round verified. `flips` is, by layer, how likely it would get
    another format were the sensitivities measured again.
    """

    plan: Plan
    verification: tuple[Verification, ...]
    measured: Measured
    tried: tuple[Judged, ...]
    front: tuple[FrontPoint, ...]
    model: onnx.ModelProto | None
    phases: Mapping[str, float]
    notes: tuple[str, ...]
    trace: tuple[Step, ...] = ()
    flips: Mapping[str, float] = field(default_factory=dict)

    @property
    def sensitivity(self) -> SensitivityTable:
        """Return the loss per layer and format."""
        return self.measured.sensitivity

    @property
    def costs(self) -> tuple[CostTable, ...]:
        """Return the costs per layer and format, one table per base and placement."""
        return self.measured.costs

    @property
    def graph(self) -> LayerGraph:
        """Return the layers."""
        return self.measured.graph

    def save(self, folder: Path | str) -> None:
        """Write plan, executable, report, summary and tables into a folder."""
        place = Path(folder)
        save_plan(self.plan, place / "plan.json")
        self.measured.save(place)
        write_atomically(place / "verification.json", to_json(self.verification).encode())
        if self.model is not None:
            write_atomically(place / "model.onnx", self.model.SerializeToString())
        Summary(
            verification=self.verification,
            tried=tuple(tried_plan(judged) for judged in self.tried),
            front=self.front,
            graph=self.graph,
            phases=self.phases,
            notes=self.notes,
            trace=tuple(asdict(step) for step in self.trace),
            flips=self.flips,
        ).save(place)
        report(place)


def search(  # noqa: PLR0913  # the names that other programs rely on
    model: ModelSource | Prepared,
    calibration: DataSource = None,
    *,
    budgets: Mapping[str, str | float] | None = None,
    max_drop: float | None = None,
    drop_of: str | None = None,
    minimise: str = "latency",
    task: TaskSource = "auto",
    validation: DataSource | None = None,
    test: DataSource | None = None,
    formats: Sequence[str] | None = None,
    fixed: Mapping[str, str] | None = None,
    device: str = "cpu",
    runtime: str = "openvino",
    workloads: WorkloadRequest | None = None,
    threads: int = 1,
    seed: int = 0,
    cache: Path | str | None = None,
    progress: Progress | None = None,
    solver: str = "auto",
    effort: float = DEFAULT_EFFORT,
    seconds: float | None = None,
    groups: GroupingSource | None = None,
    ranges: str = DEFAULT_RANGE_METHOD,
    pairs: str = JOINTLY,
) -> SearchResult:
    """Find the plan that loses least within the budgets, measured on this machine.

    Sensitivities and costs are measured (and cached by content), integer programs propose
    plans from several metrics, which are verified by forward passes and, as far as `effort`
    allows, refined by measuring around the best. The best are built and timed in the same
    rounds as every reference plan that keeps the budgets, and the one that was measured to
    keep them with the least validation divergence is returned with its proof.

    Args:
        model: A torch module, an ONNX file, or a folder of transformers or diffusers with
            safetensors and the config of a known architecture; see docs/models.md. Or what
            `prepare` made of it, with the data, task, workloads and cache that it was given.
        calibration: A `.npz` or `.jsonl` file, a folder of images, a dataset saved by
            `datasets` or as parquet, or an iterable of tensors, tuples or dicts; for a pipeline
            texts, classes or `DenoiserCalls`; None or `SyntheticInputs` for inputs made from
            the model's own weights, which every report says loudly.
        budgets: Limits such as {"weight_bytes": "25%", "latency": "4ms"}. A share is of full
            precision; "115% of fastest" is of the fastest reference plan. Optional where
            `max_drop` is given.
        max_drop: Lose at most so many points (hundredths) of a measure, certified on
            validation data with 95 % confidence; then spend least of `minimise`.
        drop_of: Which measure: the first labelled one by default, such as "accuracy".
        minimise: "latency", "weight_bytes" or another budget's name, for `max_drop`.
        task: A name of `mpsearch.tasks.TASKS`, a callable task, or "auto".
        validation: Data that decides between plans; without it the last 30 % of the
            calibration samples do.
        test: Data that is looked at once, after the plan is settled.
        formats: Names of formats to try; the bases are always among them.
        fixed: Format by layer name or pattern.
        device: "cpu".
        runtime: "openvino", or "simulation" for formats w2 to w8 without a runtime.
        workloads: Input shapes that latency is measured at; a single sample by default.
        threads: Threads of the deployed model.
        seed: Of everything random.
        cache: Folder of measured values; a folder of the user by default.
        progress: Called with each step of long work.
        solver: Name of the solver.
        effort: What sensitivity and refinement may spend, in exact passes of every layer and
            format: below 1.2 random directions stand for the pass, from 2.5 on there are rounds.
        seconds: What measuring may take: it lowers the effort where an exact pass takes
            longer here, and no round begins after it. None for no limit.
        groups: Groups of layers with metrics of their own: a TOML file, or "diffusion".
        ranges: How ranges of static activations are found: "mse", "percentile", "entropy",
            "minmax", or "smoothed": by mse, once outliers of linear layers' inputs were moved
            into the weights, which transformers gain by.
        pairs: "jointly": every format is measured as it is; "apart": weights and inputs by
            themselves and added, which is faster where there are many pairs such as w4a8.

    Raises:
        InfeasibleBudgetError: No plan keeps the budgets; says what is reachable.
        BoundNotHeldError: No plan is certified to lose so little; says what would be needed.
        UsageError: Model, data, budgets or formats cannot be right.

    Example:
        See the README.
    """
    wanted = Wanted.of(budgets, max_drop=max_drop, drop_of=drop_of, minimise=minimise)
    spending = Effort.of(effort, seconds=seconds)
    runtime = runtime_on(device, runtime)
    clock = PhaseClock(progress=progress)
    prepared = prepare(
        model,
        calibration,
        task=task,
        validation=validation,
        test=test,
        runtime=runtime,
        workloads=workloads,
        cache=cache,
        progress=clock.report,
        ranges=ranges,
        pairs=pairs,
        has_products=offers_products(formats),
    )
    ground = explore(
        prepared,
        formats=formats,
        runtime=runtime,
        threads=threads,
        seed=seed,
        progress=clock.report,
        fixed=fixed or {},
        solver=solver,
        effort=spending,
        groups=read_groups(groups),
    )
    contest = _contest(prepared, threads=threads, seed=seed)
    found = wanted.chosen(ground.space, contest=contest, progress=clock.report)
    return _result(prepared, ground, found=found, clock=clock, seed=seed)


def _contest(prepared: Prepared, *, threads: int, seed: int) -> Contest:
    return Contest(
        traced=prepared.traced,
        base=prepared.base,
        task=prepared.task,
        data=prepared.validation,
        reference=reference_outputs(prepared.traced, task=prepared.task, data=prepared.validation),
        threads=threads,
        seed=seed,
    )


def _result(
    prepared: Prepared,
    ground: Ground,
    *,
    found: Found,
    clock: PhaseClock,
    seed: int,
) -> SearchResult:
    measured, refined = ground.measured, ground.suggester.refined
    winner = found.tried[0]
    plan = _at_contest_speed(winner)
    (cost,) = (
        cost
        for cost in measured.costs
        if (cost.base, cost.placement) == (plan.base, plan.placement)
    )
    flips = flip_shares(
        measured.sensitivity,
        cost,
        budgets=plan.budgets,
        fixed=ground.space.fixed,
        generator=np.random.default_rng(seed),
    )
    deployment, combining = winner.entry.deployment, measured.sensitivity.combining
    return SearchResult(
        plan=plan,
        verification=prove(
            winner.entry,
            plan=plan,
            traced=prepared.traced,
            task=prepared.task,
            device=cost.device.name,
            test=prepared.test,
            bound=found.bound,
        ),
        measured=measured,
        tried=found.tried,
        front=found.front,
        model=None if deployment is None else deployment.model,
        phases=clock.phases(),
        notes=(
            *_notes(found, own_validation=prepared.has_own_validation),
            *repairs_told(found.tried),
            *prepared.notes,
            *measured.graph.left_out_told,
            *measured.notes,
            *ground.notes,
            *((combining.told,) if combining is not None else ()),
            *rounds_told(refined),
            *filter(None, [flips_told(flips, formats=plan.assignment)]),
        ),
        trace=ground.suggester.steps,
        flips=flips,
    )


def _at_contest_speed(winner: Judged) -> Plan:
    """Return the plan with its latency forecast for the machine as fast as in the contest."""
    plan = winner.entry.plan
    return replace(
        plan,
        budgets=winner.budgets,
        forecast=_scaled(plan.forecast, factor=winner.drift),
        tolerance=_scaled(plan.tolerance, factor=winner.drift),
    )


def _scaled(amounts: Mapping[str, float], *, factor: float) -> dict[str, float]:
    return {
        name: value * factor if name.startswith("latency") else value
        for name, value in amounts.items()
    }


def _notes(found: Found, *, own_validation: bool) -> tuple[str, ...]:
    """Say which plan is returned, against what, and what did not build."""
    tried = found.tried
    kept = [judged for judged in tried if judged.keeps]
    rivals = sum(judged.is_reference for judged in kept)
    kind = "a reference plan" if tried[0].is_reference else "a searched plan"
    merit = (
        "it has the least validation loss among them."
        if found.bound is None
        else "each is certified to hold the bound on what is lost, and it spends least."
    )
    verdict = (
        f"Returned {kind}: {tried[0].entry.plan.origin}. Of {len(tried)} plans built, {len(kept)} "
        f"were measured to keep the budgets, {rivals} of them reference plans; {merit}"
    )
    notes = [verdict]
    if abs(tried[0].drift - 1) > _NOTABLE_DRIFT:
        notes.append(
            f"The machine took {tried[0].drift:.2f} times as long for the reference plans as while "
            "the tables were measured; the forecast of latency is scaled by that."
        )
    if not own_validation:
        notes.append("No validation data was given; the last 30 % of the samples served.")
    notes += [
        f"{judged.entry.plan.origin} was left out: {judged.entry.broken}"
        for judged in tried
        if judged.entry.broken
    ]
    return tuple(notes)
