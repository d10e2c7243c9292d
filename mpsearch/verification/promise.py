"""The rows of the proof: each quantity as promised, as measured, and whether it held."""

import math
from collections.abc import Mapping

from mpsearch.core.hardware import Resource
from mpsearch.core.plan import Budget, Plan
from mpsearch.core.verification import Verification
from mpsearch.formulation import Z_95, resource_of
from mpsearch.formulation.planning import TAIL_LATENCY
from mpsearch.runtimes import NoiseCheck
from mpsearch.tasks.drop import DropBound, drop_of, interval_of_drop
from mpsearch.verification.contest import Latency
from mpsearch.verification.quality import Quality


def latency_row(
    plan: Plan, *, latency: Latency, device: str, name: str = Resource.LATENCY_NS
) -> Verification:
    """Compare the latency; the plan's own tolerance and the noise of this contest count.

    `name` is what the latency of the workload is called in cost tables.
    """
    predicted = plan.forecast[name]
    noise = Z_95 * latency.repeatability * predicted
    tolerance = math.hypot(plan.tolerance[name], noise)
    measured, spread = latency.median_ns, Z_95 * latency.stderr_ns
    quantity = name.replace(Resource.LATENCY_NS, "latency", 1)
    limit = limit_of(plan.budgets, quantity)
    within = abs(measured - predicted) <= tolerance
    return Verification(
        quantity=quantity,
        unit="ns",
        predicted=predicted,
        measured=measured,
        interval=(measured - spread, measured + spread),
        tolerance=tolerance,
        limit=limit,
        passed=within and (limit is None or measured <= limit),
        device=device,
        note="median of one inference, timed head to head",
    )


def tail_row(
    plan: Plan, *, latency: Latency, device: str, name: str = Resource.LATENCY_NS
) -> Verification:
    """Report the 99th percentile beside its forecast; a tail is no promise of the plan's.

    The forecast says how far above the median it lay while profiling. `name` is what the
    latency of the workload is called in cost tables.
    """
    assert latency.p99_ns is not None
    return Verification(
        quantity=name.replace(Resource.LATENCY_NS, "latency p99", 1),
        unit="ns",
        predicted=plan.forecast.get(name.replace(Resource.LATENCY_NS, TAIL_LATENCY, 1)),
        measured=latency.p99_ns,
        device=device,
        note="99th percentile of single inferences, disturbed ones included; not promised",
    )


def bytes_row(plan: Plan, *, measured: int, limit: float | None, device: str) -> Verification:
    """Compare the bytes of the file's initialisers, which are forecast exactly."""
    predicted = plan.forecast[Resource.WEIGHT_BYTES]
    return Verification(
        quantity="weight_bytes",
        unit="B",
        predicted=predicted,
        measured=float(measured),
        tolerance=0.0,
        limit=limit,
        passed=predicted == measured and (limit is None or measured <= limit),
        device=device,
    )


def exact_row(plan: Plan, *, budget: Budget, device: str) -> Verification:
    """State what a plan spends of a resource that is counted from shapes and formats."""
    amount = plan.forecast[resource_of(budget)]
    return Verification(
        quantity=budget.name,
        unit=budget.unit,
        predicted=amount,
        measured=amount,
        tolerance=0.0,
        limit=budget.limit,
        passed=amount <= budget.limit,
        device=device,
        note="counted from shapes and formats",
    )


def loss_row(plan: Plan, *, quality: Quality, device: str, part: str) -> Verification:
    """Compare the squared output error with the sum that the tables promised."""
    predicted = plan.forecast["loss"]
    tolerance = Z_95 * quality.stderr + plan.tolerance["loss"]
    return Verification(
        quantity=f"loss on {part}",
        unit="squared output error",
        predicted=predicted,
        measured=quality.loss,
        interval=quality.interval,
        tolerance=tolerance,
        passed=abs(quality.loss - predicted) <= tolerance,
        device=device,
        note=f"{quality.samples} samples that the search has not used",
    )


def reported_rows(quality: Quality, *, device: str, part: str) -> tuple[Verification, ...]:
    """List the task's own measures; nothing was promised about them.

    A measure that is a mean over samples has the interval of what the plan changed in it, as
    full precision's own value on these samples is known.
    """
    measures: Mapping[str, float] = {**quality.fidelity, **quality.labelled}
    return tuple(
        Verification(
            quantity=f"{name} on {part}",
            unit="",
            measured=value,
            interval=_interval(quality, name=name, value=value),
            device=device,
            note="labelled" if name in quality.labelled else "label-free",
        )
        for name, value in measures.items()
    )


def _interval(quality: Quality, *, name: str, value: float) -> tuple[float, float] | None:
    differences = quality.differences.get(name)
    if differences is None or len(differences) <= 1:
        return None
    full = value + float(differences.mean())
    low, high = interval_of_drop(differences)
    return full - high, full - low


def drop_row(
    quality: Quality, *, bound: DropBound, device: str, part: str, is_certified: bool
) -> Verification:
    """State how far a measure fell; where it decided, it must hold its bound with confidence."""
    measure, differences = bound.differences(quality.differences)
    drop = drop_of(differences, measure=measure)
    return Verification(
        quantity=f"drop of {measure} on {part}",
        unit="",
        measured=drop.mean,
        interval=(2 * drop.mean - drop.upper, drop.upper),
        limit=bound.bound,
        passed=drop.holds(bound.bound) if is_certified else True,
        device=device,
        note=f"at most {drop.upper:.3g} with 95 % confidence, {drop.samples:,} samples",
    )


def agreement_row(agreement: NoiseCheck, *, device: str) -> Verification:
    """State how far the runtime's numbers are from the simulation at deployment's shapes."""
    return Verification(
        quantity="runtime against simulation",
        unit="relative difference",
        predicted=0.0,
        measured=agreement.error,
        tolerance=agreement.limit,
        passed=agreement.passed,
        device=device,
        note=f"quantisation itself changes the output by {agreement.noise:.1%}",
    )


def limit_of(budgets: tuple[Budget, ...], name: str) -> float | None:
    """Return the limit of the budget called `name`, or None where there is none."""
    return next((budget.limit for budget in budgets if budget.name == name), None)
