"""Trials of placements on a device whose times are known."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from mpsearch.core.cache import Cache
from mpsearch.core.graph import LayerGraph, Op
from mpsearch.core.hardware import Support, Workload
from mpsearch.core.placement import ADDITION_KEY, OWN_SLOT_KEY, addend_keys
from mpsearch.core.plan import ActivationQuantizer, Plan
from mpsearch.cost import profile
from mpsearch.cost.placement_trial import PlacementTrials
from mpsearch.cost.sampling import assignment_of, random_choices
from mpsearch.export import export_plan, weight_bytes

FORMATS = ("w8a8", "w8")


@pytest.fixture
def marked(base: onnx.ModelProto) -> onnx.ModelProto:
    """Return the chain with the sum of a bias taken for a residual addition."""
    result = onnx.ModelProto()
    result.CopyFrom(base)
    (node,) = (each for each in result.graph.node if "linear.4.sum" in each.output)
    node.metadata_props.add(key=ADDITION_KEY, value="linear.4")
    node.metadata_props.add(key=OWN_SLOT_KEY, value="0")
    return result


@pytest.fixture
def trials(
    graph: LayerGraph,
    marked: onnx.ModelProto,
    quantizers: dict[str, ActivationQuantizer],
    runtime: Any,  # noqa: ANN401 - a fixture's class cannot be imported
) -> PlacementTrials:
    """Return the trials of that chain on the known device."""
    any_range = next(iter(quantizers.values()))
    return PlacementTrials(
        base=marked,
        graph=graph,
        runtime=replace(runtime, profiles=False),
        formats=FORMATS,
        quantizers=quantizers | dict.fromkeys(addend_keys("linear.4"), any_range),
        additions={"linear.4": "linear.4"},
        state=runtime.state,
    )


def _on(trials: PlacementTrials, **changes: object) -> PlacementTrials:
    """Return the trials on a device that differs."""
    known: Any = trials.runtime
    return replace(trials, runtime=replace(known, **changes))


def _builds(trials: PlacementTrials) -> list[dict[str, str]]:
    known: Any = trials.runtime
    found: list[dict[str, str]] = known.builds
    return found


def _supports(graph: LayerGraph, *, kind: Support) -> Mapping[str, Any]:
    taken = {
        layer.name: {} if layer.op is Op.EMBEDDING else {"w8a8": kind, "w8": Support.NATIVE}
        for layer in graph.layers
    }
    return {"fp32": taken}


@pytest.mark.parametrize("gain", [-20e-6, 0.0, 20e-6])
def test_additions_gain_where_they_beat_every_plan_without_them(
    trials: PlacementTrials, workload: Workload, gain: float
) -> None:
    slower = _on(trials, added=-gain)
    (trial,) = slower.run(_supports(trials.graph, kind=Support.NATIVE), workloads=[workload])
    times = trial.seconds[workload.name]
    assert times["residual_adds"] == pytest.approx(times["layer_inputs"] - gain, rel=1e-3)
    assert trial.fastest[workload.name] == times["layer_inputs"] < times["plain"]
    assert (trial.additions, bool(trial.gains)) == (1, gain > 0)


def test_what_does_not_build_gains_nothing_and_says_why(
    trials: PlacementTrials, workload: Workload
) -> None:
    broken = _on(trials, refuses_additions=True)
    (trial,) = broken.run(_supports(trials.graph, kind=Support.NATIVE), workloads=[workload])
    assert "does not compile" in trial.broken
    assert not trial.gains


def test_nothing_is_built_where_no_addition_would_be_quantised(
    trials: PlacementTrials, workload: Workload
) -> None:
    supports = _supports(trials.graph, kind=Support.STORAGE)
    assert trials.run(supports, workloads=[workload]) == ()
    assert not _builds(trials)


def test_a_trial_is_remembered_for_its_zero_points(
    trials: PlacementTrials, workload: Workload, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cached = replace(trials, cache=Cache(folder=Path(tmp_path_factory.mktemp("cache"))))
    supports = _supports(trials.graph, kind=Support.NATIVE)
    first = cached.run(supports, workloads=[workload])
    built = len(_builds(trials))
    assert cached.run(supports, workloads=[workload]) == first
    assert len(_builds(trials)) == built
    key = addend_keys("linear.4")[0]
    moved = replace(cached.quantizers[key], zero_point=cached.quantizers[key].zero_point + 1)
    replace(cached, quantizers={**cached.quantizers, key: moved}).run(
        supports, workloads=[workload]
    )
    assert len(_builds(trials)) == 2 * built


def test_bytes_of_plans_with_additions_are_exact(
    trials: PlacementTrials,
    workload: Workload,
    runtime: Any,  # noqa: ANN401 - as above
) -> None:
    graph = replace(trials.graph, additions=trials.additions)
    table = profile(
        trials.base,
        graph,
        runtime=runtime,
        formats=("fp32", *FORMATS),
        base_precision="fp32",
        placement="residual_adds",
        workload=workload,
        quantizers=trials.quantizers,
        state=runtime.state,
    )
    assert table.additions == {"linear.4": "linear.4"}
    for row in random_choices(table.allowed, count=8, generator=np.random.default_rng(0)):
        assignment = assignment_of(row, layers=table.layers, formats=table.formats)
        is_static = assignment["linear.4"] == "w8a8"
        addends = {key: trials.quantizers[key] for key in addend_keys("linear.4")}
        plan = Plan(
            assignment=assignment,
            placement="residual_adds",
            quantizers={**dict(trials.quantizers), **addends}
            if is_static
            else {k: q for k, q in trials.quantizers.items() if k not in addends},
        )
        expected = weight_bytes(export_plan(trials.base, plan))
        assert table.spend(assignment)["weight_bytes"] == expected
