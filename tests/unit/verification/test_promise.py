"""A row passes exactly where the promise held and the limit was kept."""

from dataclasses import replace

import numpy as np
import pytest

from mpsearch.core.plan import Budget, Plan
from mpsearch.runtimes import NoiseCheck
from mpsearch.tasks.drop import interval_of_drop
from mpsearch.verification.contest import Latency
from mpsearch.verification.promise import (
    agreement_row,
    bytes_row,
    exact_row,
    latency_row,
    loss_row,
    reported_rows,
    tail_row,
)
from mpsearch.verification.quality import Quality

BYTES = Budget(name="weight_bytes", text="1KB", limit=1000.0, unit="B")
LATENCY = Budget(name="latency", text="1us", limit=1000.0, unit="ns")
PLAN = Plan(
    assignment={"a": "w8"},
    budgets=(BYTES, LATENCY),
    forecast={"loss": 2.0, "weight_bytes": 900.0, "latency_ns": 960.0},
    tolerance={"loss": 0.5, "weight_bytes": 0.0, "latency_ns": 60.0},
)


@pytest.mark.parametrize(("measured", "passed"), [(900, True), (901, False), (899, False)])
def test_bytes_are_promised_exactly(*, measured: int, passed: bool) -> None:
    row = bytes_row(PLAN, measured=measured, limit=1000.0, device="x")
    assert row.passed is passed


def test_bytes_over_the_limit_fail_though_forecast() -> None:
    assert not bytes_row(PLAN, measured=900, limit=899.0, device="x").passed


@pytest.mark.parametrize(
    ("median", "passed"), [(960.0, True), (999.0, True), (1001.0, False), (880.0, False)]
)
def test_latency_passes_within_tolerance_and_limit(*, median: float, passed: bool) -> None:
    latency = Latency(median_ns=median, stderr_ns=2.0, repeatability=0.01)
    row = latency_row(PLAN, latency=latency, device="x")
    # 60 of the forecast and 1.96 x 1 % of 960 of this contest's noise.
    assert row.tolerance == pytest.approx(62.88, abs=0.01)
    assert row.passed is passed
    assert row.limit == 1000.0


def test_each_workload_has_a_tail_of_its_own() -> None:
    plan = replace(PLAN, forecast={**PLAN.forecast, "latency_p99_ns@b32": 1500.0})
    latency = Latency(median_ns=960.0, stderr_ns=2.0, repeatability=0.01, p99_ns=1400.0)
    row = tail_row(plan, latency=latency, device="x", name="latency_ns@b32")
    assert (row.quantity, row.predicted, row.measured) == ("latency p99@b32", 1500.0, 1400.0)
    assert tail_row(plan, latency=latency, device="x").predicted is None


@pytest.mark.parametrize(("loss", "passed"), [(2.0, True), (2.65, True), (2.75, False)])
def test_loss_passes_within_the_sum_of_both_errors(*, loss: float, passed: bool) -> None:
    row = loss_row(PLAN, quality=Quality(loss=loss, stderr=0.1, samples=9), device="x", part="v")
    assert row.tolerance == pytest.approx(0.696, abs=1e-3)
    assert row.passed is passed


def test_what_is_counted_passes_within_its_limit() -> None:
    bops = Budget(name="bops", text="", limit=10.0, unit="BOPs")
    plan = Plan(assignment={}, forecast={"bops": 11.0})
    assert not exact_row(plan, budget=bops, device="x").passed


def test_agreement_passes_up_to_twice_the_noise_of_quantisation() -> None:
    assert agreement_row(NoiseCheck(error=0.09, noise=0.05), device="x").passed
    assert not agreement_row(NoiseCheck(error=0.62, noise=0.05), device="x").passed
    # Where quantisation changes hardly anything, 2 % of rounding are accepted.
    assert agreement_row(NoiseCheck(error=0.019, noise=0.0), device="x").passed


def test_reported_measures_promise_nothing() -> None:
    quality = Quality(
        loss=0.1, stderr=0.0, samples=3, fidelity={"cosine": 0.9}, labelled={"accuracy": 0.8}
    )
    rows = reported_rows(quality, device="x", part="test data")
    assert [(row.quantity, row.note) for row in rows] == [
        ("cosine on test data", "label-free"),
        ("accuracy on test data", "labelled"),
    ]
    assert all(row.predicted is None and row.passed for row in rows)


def test_means_over_samples_are_reported_with_the_interval_of_what_changed() -> None:
    differences = np.repeat([1.0, -1.0, 0.0], [3, 1, 196])
    quality = Quality(
        loss=1.0,
        stderr=0.0,
        samples=200,
        fidelity={"kl": 0.2},
        labelled={"accuracy": 0.9},
        differences={"accuracy": differences},
    )
    kl, accuracy = reported_rows(quality, device="d", part="test data")
    assert kl.interval is None
    low, high = interval_of_drop(differences)
    # Full precision is right in .91 of these samples, which is no estimate.
    assert accuracy.interval == pytest.approx((0.91 - high, 0.91 - low))
    assert accuracy.passed
