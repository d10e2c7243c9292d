"""A search spends what it is allowed, proposes from what that buys, and says so."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import mpsearch
from mpsearch.errors import UsageError
from mpsearch.search.refinement import pass_forwards
from mpsearch.workflow.changes import unless_fixed
from mpsearch.workflow.effort import Effort
from mpsearch.workflow.search import SearchResult

FORMATS = ("w8", "w4", "w3", "w2")


def network() -> nn.Sequential:
    torch.manual_seed(0)
    parts: list[nn.Module] = []
    for _ in range(4):
        layer = nn.Linear(8, 8)
        layer.weight.data *= 3
        parts += [layer, nn.Tanh()]
    return nn.Sequential(*parts, nn.Linear(8, 5))


@pytest.fixture(scope="module")
def samples() -> Tensor:
    return torch.randn(48, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def searched(samples: Tensor, cache: Path, **arguments: Any) -> SearchResult:  # noqa: ANN401 - of search
    given: dict[str, Any] = {
        "budgets": {"weight_bits": "3.5"},
        "task": "classification",
        "formats": FORMATS,
        "runtime": "simulation",
        "cache": cache,
        **arguments,
    }
    return mpsearch.search(network(), [{"input": samples}], **given)


@pytest.mark.parametrize("effort", [1.0, 1.25, 4.0])
def test_a_search_spends_no_more_than_its_effort(
    effort: float, samples: Tensor, cache: Path
) -> None:
    result = searched(samples, cache, effort=effort)
    exact = pass_forwards(_traced(result, samples), dict.fromkeys(result.graph.names, FORMATS))
    # Whatever is allowed, three candidates are verified, on fewer than half as many samples.
    assert result.trace[-1].forwards <= effort * exact + 3 * 0.5
    best = min(step.measured for step in result.trace)
    chosen = next(step for step in result.trace if step.measured == best)
    assert result.plan.origin.startswith(chosen.origin)


def _traced(result: SearchResult, samples: Tensor) -> Any:  # noqa: ANN401 - a traced model
    from mpsearch.tracing import trace_model

    assert result.graph.layers
    return trace_model(network(), {"input": samples[:2]})


def test_the_table_of_a_search_is_that_of_the_exact_metric(samples: Tensor, cache: Path) -> None:
    """A second method: the metric itself, bit for bit."""
    result = searched(samples, cache)
    measured = mpsearch.measure(
        network(),
        [{"input": samples}],
        task="classification",
        formats=FORMATS,
        runtime="simulation",
        cache=cache,
    )
    one, other = result.sensitivity, measured.sensitivity
    assert (one.metric, one.unit, one.samples) == (other.metric, other.unit, other.samples)
    np.testing.assert_array_equal(one.loss, other.loss)
    np.testing.assert_allclose(one.stderr, other.stderr, rtol=1e-12)
    assert one.provenance == other.provenance


def test_little_effort_measures_by_random_directions(samples: Tensor, cache: Path) -> None:
    result = searched(samples, cache, effort=1.0)
    assert result.sensitivity.metric == "output_probe"
    assert any("The next step up, an exact pass" in note for note in result.notes)


def test_the_trace_of_rounds_is_saved_and_told(
    samples: Tensor, cache: Path, tmp_path: Path
) -> None:
    result = searched(samples, cache, effort=6.0)
    assert {step.round for step in result.trace} >= {0, 1}
    assert any(note.startswith("Round 1: ") for note in result.notes)
    result.save(tmp_path)
    stored = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert [each["measured"] for each in stored["trace"]] == [s.measured for s in result.trace]
    assert "Round 1: " in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_same_search_again_ends_alike(samples: Tensor, cache: Path, tmp_path: Path) -> None:
    """From the cache, and from an empty one."""
    first = searched(samples, cache, effort=4.0)
    for folder in (cache, tmp_path):
        again = searched(samples, folder, effort=4.0)
        assert again.trace == first.trace
        assert again.plan.assignment == first.plan.assignment


def test_pinned_layers_stay_and_are_not_measured(samples: Tensor, cache: Path) -> None:
    result = searched(samples, cache, fixed={"0": "fp32"}, budgets={"weight_bits": "9"}, effort=4.0)
    assert result.plan.assignment["0"] == "fp32"
    assert np.isnan(result.sensitivity.loss[0]).all()
    assert np.isfinite(result.sensitivity.loss[1:]).all()
    assert all(judged.entry.plan.assignment["0"] == "fp32" for judged in result.tried)


def test_the_last_pattern_that_matches_pins_a_layer() -> None:
    offered = {"a.one": FORMATS, "a.two": FORMATS, "b": FORMATS}
    found = unless_fixed(offered, fixed={"a.*": "w8", "a.two": "fp32"})
    assert found == {"a.one": ("w8",), "a.two": (), "b": FORMATS}


def test_seconds_lower_the_effort_where_a_pass_takes_longer() -> None:
    effort = Effort.of(5.0, seconds=30.0)
    assert effort.within(10.0).passes == 3.0
    assert effort.within(1.0).passes == 5.0
    assert not effort.within(60.0).is_exact


@pytest.mark.parametrize(("passes", "seconds"), [(0.0, None), (-1.0, None), (1.0, 0.0)])
def test_no_effort_at_all_is_refused(passes: float, seconds: float | None) -> None:
    with pytest.raises(UsageError, match="nothing to spend"):
        Effort.of(passes, seconds=seconds)


def test_an_unknown_metric_is_refused(samples: Tensor, cache: Path) -> None:
    with pytest.raises(UsageError, match="'nonsense' is unknown"):
        mpsearch.measure(
            network(),
            [{"input": samples}],
            task="classification",
            formats=FORMATS,
            runtime="simulation",
            cache=cache,
            metric="nonsense",
        )
