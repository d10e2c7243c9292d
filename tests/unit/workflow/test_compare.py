"""A comparison tells each metric's own optimum, verified, and how alike metrics rank."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mpsearch.core.plan import Plan
from mpsearch.core.tables import SensitivityTable
from mpsearch.errors import InfeasibleBudgetError, UsageError
from mpsearch.execution import quantised, run
from mpsearch.tasks.predictions import kl_divergence
from mpsearch.workflow.compare import (
    Comparison,
    MetricResult,
    advice_of,
    compare_metrics,
    rank_agreement,
)

FORMATS = ("w6", "w3", "w2")


@pytest.fixture(scope="module")
def samples() -> Tensor:
    return torch.randn(20, 6, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))


@pytest.fixture(scope="module")
def found(
    model: nn.Sequential, samples: Tensor, tmp_path_factory: pytest.TempPathFactory
) -> Comparison:
    return compare_metrics(
        model,
        [{"input": samples[:12]}],
        budgets={"weight_bits": "4"},
        metrics=("weight_error", "output_probe", "output_error"),
        task="classification",
        validation=[{"input": samples[12:]}],
        formats=FORMATS,
        cache=tmp_path_factory.mktemp("cache"),
    )


def test_each_plan_is_verified_on_data_that_no_metric_saw(
    found: Comparison, model: nn.Sequential, samples: Tensor
) -> None:
    for result in found.results:
        plan = Plan(assignment=result.assignment, runtime="simulation")
        with quantised(model, plan, example={"input": samples[:2]}) as deployed:
            outputs = run(deployed, {"input": samples[12:]})
        with torch.no_grad():
            losses = kl_divergence(model(samples[12:]), outputs)
        assert result.measured == pytest.approx(float(losses.mean()), rel=1e-2)
        assert result.stderr == pytest.approx(float(losses.std() / 8**0.5), rel=1e-2)
        assert result.formats == tuple(result.assignment.values())


def test_agreement_is_symmetric_with_ones(found: Comparison) -> None:
    np.testing.assert_array_equal(found.agreement, found.agreement.T)
    np.testing.assert_array_equal(np.diag(found.agreement), 1.0)


def test_the_page_names_every_metric_and_draws_them(found: Comparison, tmp_path: Path) -> None:
    found.save(tmp_path)
    page = (tmp_path / "metrics.html").read_text(encoding="utf-8")
    assert page.count("<circle") == len(found.results)
    assert all(f">{result.metric}</text>" in page for result in found.results)
    assert "<script" not in page
    numbers = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    assert numbers["agreement"] == found.agreement.tolist()
    assert [each["metric"] for each in numbers["results"]] == [r.metric for r in found.results]


def table(*rows: list[float]) -> SensitivityTable:
    loss = np.array(rows)
    return SensitivityTable(
        layers=tuple(map(str, range(len(loss)))),
        formats=FORMATS,
        loss=loss,
        stderr=np.zeros(loss.shape),
        metric="any",
        unit="any",
    )


def test_ranks_of_the_pairs_that_both_know_are_correlated() -> None:
    """By hand: reversed order is -1, any growing function 1; unknown pairs are left out."""
    one = table([1.0, 2.0, 3.0], [4.0, 5.0, np.nan])
    grown = table([1.0, 4.0, 9.0], [16.0, 25.0, 0.0])
    reversed_ = table([5.0, 4.0, 3.0], [2.0, 1.0, 9.0])
    found = rank_agreement([one, grown, reversed_])
    np.testing.assert_allclose(found[0], [1.0, 1.0, -1.0])
    flat = table([1.0, 1.0, 1.0], [1.0, 1.0, 1.0])
    assert np.isnan(rank_agreement([one, flat])[0, 1])


def test_advice_names_the_cheapest_that_is_not_worse_beyond_noise() -> None:
    def result(metric: str, *, seconds: float, measured: float) -> MetricResult:
        return MetricResult(
            metric=metric,
            seconds=seconds,
            measured=measured,
            stderr=0.1,
            formats=(),
            assignment={},
        )

    dear = result("dear", seconds=9.0, measured=1.0)
    near = result("near", seconds=2.0, measured=1.05)
    far = result("far", seconds=0.1, measured=1.5)
    assert advice_of([far, near, dear]).startswith("dear found the best plan, 1 after 9.0 s.")
    assert "near is within one standard error" in advice_of([far, near, dear])
    assert "far" not in advice_of([far, near, dear])


@pytest.mark.parametrize("metrics", [(), ("weight_error", "weight_error"), ("nonsense",)])
def test_wrong_metrics_are_refused_before_anything_is_read(metrics: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="Expected"):
        compare_metrics(Path("nowhere"), "nothing", budgets={"weight_bits": "4"}, metrics=metrics)


def test_a_budget_that_no_plan_keeps_is_told(
    model: nn.Sequential, samples: Tensor, tmp_path: Path
) -> None:
    with pytest.raises(InfeasibleBudgetError):
        compare_metrics(
            model,
            [{"input": samples}],
            budgets={"weight_bits": "1"},
            metrics=("weight_error",),
            task="classification",
            formats=FORMATS,
            cache=tmp_path,
        )
