"""Rounds keep what is measured better, spend no more than allowed, and end at a real optimum."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mpsearch.core.cache import Cache
from mpsearch.core.hardware import Device, Support
from mpsearch.core.plan import Budget
from mpsearch.core.tables import CostTable, SensitivityTable
from mpsearch.formulation import Formulation, formulate
from mpsearch.search.refinement import Allowance, Refined, Refinement, pass_forwards
from mpsearch.search.true_loss import TrueLoss
from mpsearch.sensitivity.change_request import ChangeRequest
from mpsearch.sensitivity.output_changes import measure_changes
from mpsearch.tasks import TASKS, read_data
from mpsearch.tracing import trace_model

FORMATS = ("w6", "w4", "w3", "w2")
LAYERS = ("0", "2", "4", "6")


class _Case:
    """A small network, half of whose samples score and half verify."""

    def __init__(self, folder: Path, *, seed: int) -> None:
        torch.manual_seed(seed)
        wide = [nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.ReLU()]
        model = nn.Sequential(*wide, nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 5))
        for part in model:
            if isinstance(part, nn.Linear):
                part.weight.data *= 3
        samples = torch.randn(24, 6)
        traced = trace_model(model, {"input": samples[:2]})
        self.folder = folder
        self.request = ChangeRequest(
            traced=traced,
            task=TASKS["classification"],
            data=self._data(samples[:12]),
            pairs=dict.fromkeys(LAYERS, FORMATS),
        )
        self.verifying = replace(self.request, data=self._data(samples[12:]))
        self.cache = Cache(folder=folder / "cache")
        self.formulation = self._formulation()

    def truth(self) -> TrueLoss:
        return TrueLoss(self.verifying, cache=self.cache)

    def refinement(self, *, forwards: float, **arguments: Any) -> Refinement:  # noqa: ANN401 - of Refinement
        return Refinement(
            self.formulation,
            request=self.request,
            truth=self.truth(),
            allowance=Allowance(forwards=forwards),
            cache=self.cache,
            **arguments,
        )

    def start(self) -> dict[str, np.ndarray]:
        """Return the smallest choice, which fits any budget."""
        return {"smallest": np.full(4, self.formulation.formats.index("w2"))}

    def optimum(self) -> float:
        """Return the least true divergence of all choices within the budget."""
        truth = self.truth()
        every = [np.array(c) for c in product(range(len(self.formulation.formats)), repeat=4)]
        fitting = [c for c in every if self.formulation.problem.fits(c)]
        return min(truth.loss(self.formulation.assignment(c)) for c in fitting)

    def _data(self, samples: Tensor) -> Any:  # noqa: ANN401 - a dataset
        return read_data(
            [{"input": samples}], input_names=("input",), batch_size=12, folder=self.folder / "data"
        )

    def _formulation(self) -> Formulation:
        counts = np.array([layer.parameters for layer in self.request.traced.graph.layers])
        names = ("fp32", *FORMATS)
        cost = CostTable(
            layers=LAYERS,
            formats=names,
            base="fp32",
            placement="layer_inputs",
            amount={"weight_bits": np.outer(counts, [32, 6, 4, 3, 2]).astype(np.int64)},
            constant={},
            support=((Support.NATIVE,) * 5,) * 4,
            device=Device(name="test", runtime="simulation", threads=1),
        )
        table = SensitivityTable(
            layers=LAYERS,
            formats=FORMATS,
            loss=np.ones((4, 4)),
            stderr=np.zeros((4, 4)),
            metric="none",
            unit="none",
        )
        limit = Budget(name="weight_bits", text="", limit=float(4 * counts.sum()), unit="bits")
        return formulate(table, cost, budgets=[limit])


def spent(refined: Refined) -> float:
    """Return what the last verified plan had cost."""
    return refined.steps[-1].forwards


@pytest.mark.parametrize("seed", range(3))
def test_rounds_end_near_the_best_of_all_plans(seed: int, tmp_path: Path) -> None:
    """From the worst start that fits; 625 plans are enumerated by true forwards."""
    case = _Case(tmp_path, seed=seed)
    refined = case.refinement(forwards=1e9).run(case.start(), changes=None)
    assert refined.losses[0] <= 1.25 * case.optimum()
    assert refined.losses[0] < refined.steps[0].measured
    assert refined.stopped == "a round changed nothing"


def test_only_what_is_measured_better_is_kept(tmp_path: Path) -> None:
    case = _Case(tmp_path, seed=0)
    changes = measure_changes(case.request, cache=case.cache)
    refined = case.refinement(forwards=1e9).run(case.start(), changes=changes)
    truth = case.truth()
    assert list(refined.losses) == sorted(refined.losses)
    for assignment, loss in zip(refined.assignments, refined.losses, strict=True):
        assert truth.loss(assignment) == loss
        assert case.formulation.problem.fits(case.formulation.choice(assignment))
    best = float("inf")
    for step in refined.steps:
        assert step.is_best == (step.measured < best)
        best = min(best, step.measured)
    assert best == refined.losses[0]


@pytest.mark.parametrize("forwards", [3.0, 12.0, 25.0, 40.0])
def test_no_more_is_spent_than_allowed(forwards: float, tmp_path: Path) -> None:
    case = _Case(tmp_path, seed=1)
    refined = case.refinement(forwards=forwards).run(case.start(), changes=None)
    assert spent(refined) <= forwards
    assert refined.stopped


def test_seconds_end_a_search_between_rounds(tmp_path: Path) -> None:
    case = _Case(tmp_path, seed=2)
    moments = iter(range(0, 1000, 10))
    refinement = Refinement(
        case.formulation,
        request=case.request,
        truth=case.truth(),
        allowance=Allowance(forwards=1e9, seconds=15.0),
        cache=case.cache,
        clock=lambda: float(next(moments)),
    )
    refined = refinement.run(case.start(), changes=None)
    assert refined.stopped == "the allowance of seconds is spent"
    assert {step.round for step in refined.steps} == {0, 1}


def test_a_second_run_takes_all_from_the_cache_and_ends_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = _Case(tmp_path, seed=0)
    first = case.refinement(forwards=60.0).run(case.start(), changes=None)

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("a pass was run")

    monkeypatch.setattr("mpsearch.sensitivity.output_changes.PrefixStore", forbidden)
    second = case.refinement(forwards=60.0).run(case.start(), changes=None)
    assert second == first


def test_what_candidates_have_cost_counts(tmp_path: Path) -> None:
    case = _Case(tmp_path, seed=0)
    refined = case.refinement(forwards=40.0, spent=35.0).run(case.start(), changes=None)
    assert refined.stopped == "the allowance of forwards is spent"
    assert refined.steps[0].forwards == pytest.approx(36.0)


def test_a_pass_runs_each_pair_from_its_layer_on(tmp_path: Path) -> None:
    case = _Case(tmp_path, seed=0)
    macs = np.array([48, 64, 64, 40])
    pairs: Mapping[str, tuple[str, ...]] = {"0": ("w2", "w3"), "4": ("w2",)}
    wanted = 1 + 2 + (64 + 40) / macs.sum()
    assert pass_forwards(case.request.traced, pairs) == pytest.approx(wanted)
