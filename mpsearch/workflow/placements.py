"""Which placements of quantisers are worth a profile, found by trying each under each base."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, final

from mpsearch.core.placement import LAYER_INPUTS, RESIDUAL_ADDS
from mpsearch.core.plan import ActivationQuantizer
from mpsearch.core.progress import Progress
from mpsearch.cost import CoreState
from mpsearch.cost.placement_trial import PlacementTrial, PlacementTrials
from mpsearch.errors import MeasurementError
from mpsearch.execution import observe_addends
from mpsearch.export.residual_adds import marked_additions
from mpsearch.runtimes import AbstractRuntime
from mpsearch.workflow.constant_loss import additions_loss
from mpsearch.workflow.offered import SupportByLayer
from mpsearch.workflow.prepare import Prepared

_MILLI: Final = 1e3
_REASON_LENGTH: Final = 160  # of what a runtime says, which may be pages


@final
@dataclass(frozen=True, kw_only=True)
class Placements:
    """Each (base, placement) to profile, what that needs, and in words what was tried."""

    grounds: tuple[tuple[str, str], ...]
    quantizers: Mapping[str, ActivationQuantizer]
    loss: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def placements_worth_profiling(
    prepared: Prepared,
    *,
    engine: AbstractRuntime,
    formats: Sequence[str],
    supports: Mapping[str, SupportByLayer],
    quantizers: Mapping[str, ActivationQuantizer],
    threads: int,
    seed: int,
    state: CoreState,
    progress: Progress | None,
) -> Placements:
    """Try quantisers on residual additions with uniform plans, one short contest per workload.

    Quantisers on the inputs of layers alone are always worth it. Where additions gain time
    under a base, the ranges of their addends are observed on all calibration data, and what
    they lose is measured.
    """
    plain = Placements(
        grounds=tuple((base, LAYER_INPUTS) for base in engine.bases), quantizers=quantizers
    )
    additions = _additions(prepared) if quantizers else {}
    if prepared.base is None or not additions:
        return plain
    first = prepared.calibration.take(len(prepared.calibration.batches[0].places))
    try:
        guessed = observe_addends(
            prepared.traced, first, additions=additions, method=prepared.ranges,
            cache=prepared.cache,
        )  # fmt: skip
        trials = PlacementTrials(
            base=prepared.base,
            graph=prepared.traced.graph,
            runtime=engine,
            formats=formats,
            quantizers={**quantizers, **guessed},
            additions=additions,
            threads=threads,
            cache=prepared.cache,
            progress=progress,
            seed=seed,
            state=state,
        ).run(supports, workloads=prepared.workloads)
        winners = [trial.base for trial in trials if trial.gains]
        addends = {} if not winners else observe_addends(
            prepared.traced, prepared.calibration, additions=additions, method=prepared.ranges,
            cache=prepared.cache, progress=progress,
        )  # fmt: skip
    except MeasurementError as error:
        told = f"Quantisers on residual additions were not tried: {error}"
        return Placements(grounds=plain.grounds, quantizers=quantizers, notes=(told,))
    return Placements(
        grounds=(*plain.grounds, *((base, RESIDUAL_ADDS) for base in winners)),
        quantizers={**quantizers, **addends},
        loss={RESIDUAL_ADDS: additions_loss(prepared, addends=addends)} if winners else {},
        notes=tuple(trial_told(trial) for trial in trials),
    )


def trial_told(trial: PlacementTrial) -> str:
    """Say in a sentence what quantisers on additions took under a base, and what follows."""
    what = f"Quantisers on {trial.additions} residual additions too, base {trial.base}"
    if trial.broken:
        reason = trial.broken[:_REASON_LENGTH].rsplit(" ", 1)[0]
        return f"{what}, were tried and do not run: {reason} …"
    times = "; ".join(
        f"{seconds[RESIDUAL_ADDS] * _MILLI:.3f} ms at {name!r}"
        + (f" against {seconds[LAYER_INPUTS] * _MILLI:.3f} ms with inputs of layers alone"
           if LAYER_INPUTS in seconds else "")
        + f" and {trial.fastest[name] * _MILLI:.3f} ms of the fastest plan without them"
        for name, seconds in trial.seconds.items()
        if name in trial.fastest
    )  # fmt: skip
    verdict = (
        "so plans with them are searched too."
        if trial.gains
        else "so they gain no time for what they lose, and plans with them are not searched."
    )
    return f"{what}, were tried with uniform plans: {times}; {verdict}"


def _additions(prepared: Prepared) -> dict[str, str]:
    """Return the residual additions that the base file marks, each with its layer."""
    marked = {} if prepared.base is None else marked_additions(prepared.base)
    known = prepared.traced.graph.additions
    return {name: layer for name, layer in known.items() if name in marked}
