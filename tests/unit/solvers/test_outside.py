"""Back ends in child processes: the same answers, hard limits, silence, replacement."""

import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.random import default_rng

from mpsearch.core.problem import Problem
from mpsearch.errors import SolverError
from mpsearch.solvers import Termination, outside, solve
from mpsearch.solvers.highs import Highs
from mpsearch.solvers.proposal import Proposal
from mpsearch.testing.problems import random_problem


def hard_problem(blocks: int = 400) -> Problem:
    """Return a nearly strongly correlated problem that branch and cut cannot finish.

    Noise leaves sums nothing in common.
    """
    generator = default_rng(0)
    step = np.sort(generator.integers(1, 1001, (3, blocks, 8)), axis=2)
    gain = np.cumsum(step.mean(axis=0) + 10.0, axis=1) + generator.uniform(0, 5, (blocks, 8))
    cost = np.cumsum(step, axis=2)
    low, high = cost.min(axis=2).sum(axis=1), cost.max(axis=2).sum(axis=1)
    return Problem(loss=gain[:, -1:] - gain, cost=cost, limit=(low + high) // 2)


def test_a_problem_survives_the_pipe() -> None:
    problem = random_problem(default_rng(8), with_edges=True, with_cuts=True)
    packed = outside.pack_problem(problem, solver="highs", gap=0.5, until=2.0)
    found, facts = outside.unpack_problem(packed)
    assert facts == {"solver": "highs", "gap": 0.5, "until": 2.0}
    for name in ("loss", "cost", "limit", "allowed", "edges", "edge_cost", "cuts"):
        np.testing.assert_array_equal(getattr(found, name), getattr(problem, name))


def test_a_proposal_survives_the_pipe() -> None:
    proposal = Proposal(choice=np.array([1, 2]), multipliers=np.array([0.5]), was_stopped=True)
    stream = outside.pack_proposal(Proposal()) + outside.pack_proposal(proposal)
    frames = outside._frames(stream + outside.pack_proposal(proposal)[:-1])
    assert len(frames) == 2
    found = outside.unpack_proposal(frames[1])
    assert found.choice is not None
    assert found.choice.tolist() == [1, 2]
    assert found.was_stopped
    assert not found.is_infeasible
    assert json.loads("-Infinity") == found.bound


@pytest.mark.parametrize("solver", ["highs", "pulp"])
def test_a_child_answers_as_this_process_does(
    monkeypatch: pytest.MonkeyPatch, solver: str, capfd: pytest.CaptureFixture[str]
) -> None:
    problem = random_problem(default_rng(2))
    here = solve(problem, solver)
    monkeypatch.setattr(outside, "_LARGE", 0)
    there = solve(problem, solver)
    assert there.termination is here.termination
    assert there.loss == here.loss
    assert capfd.readouterr().out == ""


def test_a_hanging_child_is_killed_at_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outside, "_GRACE_SECONDS", 0.0)
    start = time.monotonic()
    proposal = outside.asked("highs", hard_problem(), gap=0.0, deadline=start + 0.3)
    assert proposal.was_stopped
    assert proposal.choice is None
    assert "killed" in proposal.notes[0]
    assert time.monotonic() - start < 2.0


def test_a_killed_child_leaves_its_best_answer_and_its_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The child believes that it has ten times as long.
    monkeypatch.setattr(outside, "_MARGIN_SHARE", -9.0)
    problem = hard_problem()
    start = time.monotonic()
    proposal = outside.asked("highs", problem, gap=0.0, deadline=start + 4.0)
    assert proposal.was_stopped
    assert "killed" in proposal.notes[0]
    assert proposal.multipliers is not None
    assert proposal.choice is not None
    assert problem.fits(proposal.choice)


def test_a_crashing_child_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = tmp_path / "crash.sh"
    script.write_text("#!/bin/sh\ncat > /dev/null\necho broken >&2\nexit 3\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    with pytest.raises(SolverError, match="code 3: broken"):
        outside.asked("highs", hard_problem(), gap=0.0, deadline=time.monotonic() + 5)


def test_auto_replaces_a_back_end_that_crashes(monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object, **__: object) -> Proposal:
        raise SolverError("It broke.")

    monkeypatch.setattr(Highs, "propose", crash)
    problem = random_problem(default_rng(2), with_edges=True)
    found = solve(problem, "auto")
    assert found.termination is solve(problem, "exhaustive").termination
    assert any("It broke" in note for note in found.notes)


def test_auto_keeps_its_time_and_returns_the_best_answer() -> None:
    # Loads what is compiled.
    solve(hard_problem(40), time_limit_seconds=2.0, gap=0.0)
    start = time.monotonic()
    found = solve(hard_problem(), time_limit_seconds=2.0, gap=0.0)
    # A quiet machine overruns by hundredths; the rest is for one that is busy.
    assert time.monotonic() - start < 4.0
    assert found.choice is not None
    assert found.termination is Termination.LIMIT
    assert found.gap < 1e-3
