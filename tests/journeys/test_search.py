"""From a model and budgets to a proven plan, on real runtimes and small real models."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import mpsearch
from mpsearch.core.progress import ProgressEvent
from mpsearch.errors import (
    DataError,
    FormatError,
    InfeasibleBudgetError,
    PlanError,
    UnsupportedFeatureError,
)
from mpsearch.tasks import Batch
from mpsearch.workflow.report import report
from mpsearch.workflow.search import SearchResult


class Tagger(nn.Module):
    """An embedding, a residual block of two linear layers, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(512, 128)
        self.up = nn.Linear(128, 256)
        self.down = nn.Linear(256, 128)
        self.norm = nn.LayerNorm(128)
        self.head = nn.Linear(128, 16)

    def forward(self, ids: Tensor) -> Tensor:
        hidden = self.embed(ids)
        hidden = self.norm(hidden + self.down(torch.relu(self.up(hidden))))
        logits: Tensor = self.head(hidden.mean(dim=1))
        return logits


def tokens(count: int, seed: int) -> list[dict[str, Tensor]]:
    """Return batches of four sequences of eight tokens."""
    generator = torch.Generator().manual_seed(seed)
    return [{"ids": torch.randint(0, 512, (4, 8), generator=generator)} for _ in range(count // 4)]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a cache that the journeys of this module share."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def found(cache: Path) -> SearchResult:
    """Return a search in OpenVINO with untouched test data."""
    return mpsearch.search(
        Tagger(),
        tokens(24, seed=1),
        validation=tokens(16, seed=2),
        test=tokens(16, seed=3),
        budgets={"weight_bytes": "24%", "latency": "300% of fastest"},
        task="classification",
        cache=cache,
    )


def test_the_plan_keeps_its_budgets_as_measured(found: SearchResult) -> None:
    rows = {row.quantity: row for row in found.verification}
    for name in ("weight_bytes", "latency"):
        limit = rows[name].limit
        assert limit is not None
        assert rows[name].measured <= limit
    assert rows["weight_bytes"].predicted == rows["weight_bytes"].measured
    assert rows["runtime against simulation"].passed
    assert "agreement on test data" in rows
    assert {"latency", "latency p99", "peak activation memory"} <= set(rows)


def test_no_plan_that_keeps_the_budgets_was_measured_better(found: SearchResult) -> None:
    kept = [judged for judged in found.tried if judged.keeps]
    assert found.tried[0] in kept
    assert found.tried[0].loss == min(judged.loss for judged in kept)


def test_the_saved_files_run_and_agree(found: SearchResult, tmp_path: Path) -> None:
    found.save(tmp_path)
    plan = mpsearch.load_plan(tmp_path / "plan.json")
    assert plan == found.plan
    batch = tokens(4, seed=9)[0]
    deployed = mpsearch.load(tmp_path / "model.onnx")
    (output,) = deployed({"ids": batch["ids"].numpy()}).values()
    applied = mpsearch.apply(Tagger(), plan)(batch["ids"]).detach().numpy()
    assert np.linalg.norm(output - applied) <= 0.1 * np.linalg.norm(applied)
    assert "<title>" in (tmp_path / "report.html").read_text()


def test_a_second_search_measures_nothing_again(found: SearchResult, cache: Path) -> None:
    events: list[ProgressEvent] = []
    again = mpsearch.search(
        Tagger(),
        tokens(24, seed=1),
        validation=tokens(16, seed=2),
        budgets={"weight_bytes": "24%", "latency": "300% of fastest"},
        task="classification",
        cache=cache,
        progress=events.append,
    )
    assert np.array_equal(again.sensitivity.loss, found.sensitivity.loss, equal_nan=True)
    for one, two in zip(again.costs, found.costs, strict=True):
        assert all(np.array_equal(one.amount[name], two.amount[name]) for name in one.amount)
    assert events


def test_a_stored_plan_is_verified_again(found: SearchResult, cache: Path) -> None:
    rows = mpsearch.verify(
        Tagger(), found.plan, data=tokens(16, seed=4), task="classification", cache=cache
    )
    assert {"weight_bytes", "latency", "loss on validation data"} <= {r.quantity for r in rows}


def test_a_plan_of_another_model_is_refused(found: SearchResult, cache: Path) -> None:
    other = Tagger()
    with torch.no_grad():
        other.head.weight.mul_(2)
    with pytest.raises(PlanError, match="other weights"):
        mpsearch.verify(other, found.plan, data=tokens(8, seed=4), cache=cache)


def test_bits_are_studied_without_a_runtime(cache: Path) -> None:
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
    result = mpsearch.search(
        model,
        [torch.randn(8, 16, generator=torch.Generator().manual_seed(s)) for s in range(4)],
        budgets={"weight_bits": "4"},
        task="classification",
        runtime="simulation",
        cache=cache,
    )
    bits = {"0": 16 * 32, "2": 32 * 4}
    spent = sum(bits[layer] * int(name[1:]) for layer, name in result.plan.assignment.items())
    assert spent <= 4 * sum(bits.values())
    assert all(name.startswith("w") for name in result.plan.assignment.values())


def test_an_unreachable_budget_says_what_is_reachable(cache: Path) -> None:
    with pytest.raises(InfeasibleBudgetError) as caught:
        mpsearch.search(
            Tagger(),
            tokens(24, seed=1),
            budgets={"weight_bytes": "1%"},
            task="classification",
            cache=cache,
        )
    assert caught.value.smallest["weight_bytes"] > 0


def test_pinned_layers_stay(cache: Path) -> None:
    result = mpsearch.search(
        Tagger(),
        tokens(24, seed=1),
        budgets={"weight_bytes": "60%"},
        fixed={"head": "fp32"},
        task="classification",
        cache=cache,
    )
    assert result.plan.assignment["head"] == result.plan.base


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"device": "tpu"}, UnsupportedFeatureError),
        ({"runtime": "abacus"}, UnsupportedFeatureError),
        ({"task": "juggling"}, DataError),
    ],
)
def test_a_request_that_cannot_be_right_is_refused(
    cache: Path, changes: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        mpsearch.search(
            Tagger(), tokens(8, seed=1), budgets={"weight_bytes": "50%"}, cache=cache, **changes
        )


def test_the_report_is_written_again_from_the_files(found: SearchResult, tmp_path: Path) -> None:
    found.save(tmp_path)
    first = (tmp_path / "report.html").read_bytes()
    (tmp_path / "report.html").unlink()
    assert report(tmp_path) == tmp_path / "report.html"
    assert (tmp_path / "report.html").read_bytes() == first
    (tmp_path / "result.json").write_text("{}")
    with pytest.raises(DataError, match=r"result\.json"):
        report(tmp_path)


def test_a_function_serves_as_the_task(cache: Path) -> None:
    def first_logits(raw: Tensor, batch: Batch) -> Tensor:
        assert "ids" in batch
        return raw[:, :4]

    result = mpsearch.search(
        Tagger(),
        tokens(24, seed=1),
        budgets={"weight_bits": "4"},
        task=first_logits,
        runtime="simulation",
        cache=cache,
    )
    assert result.verification[-1].quantity == "cosine on validation data"


@pytest.mark.parametrize("runtime", ["simulation", "openvino"])
def test_formats_that_no_layer_can_take_are_refused(cache: Path, runtime: str) -> None:
    """Before anything is timed: a plan of nothing but the base is no answer."""
    events: list[ProgressEvent] = []
    with pytest.raises(FormatError, match="none of the 4 layers"):
        mpsearch.search(
            Tagger(),
            tokens(8, seed=1),
            budgets={"weight_bits": "4"},
            formats=["w4g9999"],  # groups that divide no row
            task="classification",
            runtime=runtime,
            cache=cache,
            progress=events.append,
        )
    assert "latency of whole plans" not in {event.phase for event in events}
