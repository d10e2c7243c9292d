"""Laws of shards: every layer once, none too short, and together what one process measures."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import Tensor, nn

import mpsearch
from mpsearch.core.cache import Cache
from mpsearch.errors import UnknownLayerError
from mpsearch.workflow import sharding as module
from mpsearch.workflow.division import Sharding, Shards, divided
from mpsearch.workflow.effort import Effort
from mpsearch.workflow.prepare import APART, JOINTLY, Prepared, prepare
from mpsearch.workflow.search import SearchResult
from mpsearch.workflow.sharding import measure_shard, shards_of

FORMATS: Final = ("w8", "w4")
EXACT: Final = Effort(passes=1.25)
ASKED: Final = {"formats": FORMATS, "runtime": "simulation", "fixed": {"0": "w8"}}
SECONDS: Final = st.dictionaries(
    st.text("abc", min_size=1, max_size=4), st.floats(0.01, 100), max_size=12
)


@given(seconds=SECONDS, most=st.integers(1, 8), least=st.floats(0.1, 60))
def test_every_layer_is_in_one_shard_and_shards_are_not_too_many(
    seconds: Mapping[str, float], most: int, least: float
) -> None:
    shards = divided(seconds, sharding=Sharding(most=most, least_seconds=least))
    assert len(shards) != 1
    assert len(shards) <= min(most, len(seconds), sum(seconds.values()) / least)
    if shards:
        assert tuple(layer for shard in shards for layer in shard) == tuple(seconds)
        assert all(shards)


@given(count=st.integers(2, 6), each=st.integers(1, 5))
def test_equal_layers_make_equal_shards(count: int, each: int) -> None:
    seconds = {f"{place}": 10.0 / each for place in range(count * each)}
    shards = divided(seconds, sharding=Sharding(most=count))
    assert [len(shard) for shard in shards] == [each] * count


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8)),
        *(nn.Tanh(), nn.Linear(8, 5)),
    )


@pytest.fixture
def samples() -> Tensor:
    return torch.randn(24, 8, generator=torch.Generator().manual_seed(0))


def ready(samples: Tensor, cache: Path, *, pairs: str = JOINTLY) -> Prepared:
    return prepare(
        network(),
        [{"input": samples}],
        task="classification",
        validation=None,
        test=None,
        runtime="simulation",
        workloads=None,
        cache=cache,
        progress=None,
        pairs=pairs,
    )


def shards(prepared: Prepared, *, effort: Effort = EXACT, least: float = 1e-9) -> Shards:
    sharding = Sharding(most=3, least_seconds=least)
    return shards_of(prepared, sharding=sharding, effort=effort, **ASKED)  # type: ignore[arg-type]  # fields by name


def searched(samples: Tensor, cache: Path) -> SearchResult:
    return mpsearch.search(
        network(),
        [{"input": samples}],
        budgets={"weight_bits": "6"},
        task="classification",
        cache=cache,
        **ASKED,  # type: ignore[arg-type]  # fields by name
    )


def test_a_search_after_its_shards_measures_nothing_and_finds_the_same_bits(
    samples: Tensor, tmp_path: Path
) -> None:
    alone = searched(samples, tmp_path / "alone")
    together = tmp_path / "together"
    for layers in shards(ready(samples, together)):
        # Another process each time: nothing is shared but the cache.
        measure_shard(ready(samples, together), layers, **ASKED)  # type: ignore[arg-type]  # by name
    kept = {path: path.stat().st_mtime_ns for path in together.glob("output_changes/*/*")}
    assert kept
    found = searched(samples, together)
    for name in ("loss", "stderr"):
        one, other = getattr(found.sensitivity, name), getattr(alone.sensitivity, name)
        assert one.tobytes() == other.tobytes()
    assert found.plan.assignment == alone.plan.assignment
    assert kept == {p: p.stat().st_mtime_ns for p in together.glob("output_changes/*/*")}


def test_what_the_cache_holds_is_in_no_shard(samples: Tensor, tmp_path: Path) -> None:
    prepared = ready(samples, tmp_path)
    first, *others = shards(prepared)
    measure_shard(prepared, first, **ASKED)  # type: ignore[arg-type]  # fields by name
    left = {layer for shard in shards(prepared) for layer in shard}
    assert left == {layer for shard in others for layer in shard}
    for layers in others:
        measure_shard(prepared, layers, **ASKED)  # type: ignore[arg-type]  # fields by name
    assert shards(prepared) == ()


def test_what_is_short_cheap_limited_in_time_or_taken_apart_is_not_divided(
    samples: Tensor, tmp_path: Path
) -> None:
    prepared = ready(samples, tmp_path)
    assert len(shards(prepared)) == 3
    assert shards(prepared, least=1e9) == ()
    assert shards(prepared, effort=replace(EXACT, passes=1.0)) == ()
    assert shards(prepared, effort=replace(EXACT, seconds=60.0)) == ()
    assert shards(ready(samples, tmp_path, pairs=APART)) == ()


def test_the_seconds_are_those_of_the_passes_ahead(
    samples: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_seconds_of_a_pass", lambda _: 8.0)
    prepared = ready(samples, tmp_path)
    # By multiply-accumulates: 64, 64, 64 and 40 of them run from each layer on.
    shares = [232 / 232, 168 / 232, 104 / 232, 40 / 232]
    # The first layer is pinned to one format, the others are tried in two.
    total = 8.0 * sum(n * share for n, share in zip((1, 2, 2, 2), shares, strict=True))
    assert len(shards(prepared, least=total / 2 - 1e-6)) == 2
    assert shards(prepared, least=total / 2 + 1e-6) == ()


def test_layers_of_another_model_are_refused(samples: Tensor, tmp_path: Path) -> None:
    with pytest.raises(UnknownLayerError, match="'nowhere'"):
        measure_shard(ready(samples, tmp_path), ("nowhere",), **ASKED)  # type: ignore[arg-type]  # by name
    assert Cache(folder=tmp_path).sizes().get("output_changes") is None
