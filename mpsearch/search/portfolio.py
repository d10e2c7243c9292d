"""Starting points of a search: what several metrics, and several views of interactions, choose."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, final

import numpy as np
from jaxtyping import Float, Float32, Int
from numpy import ndarray
from numpy.random import Generator

from mpsearch.core.plan import Budget
from mpsearch.core.problem import Problem
from mpsearch.core.solution import Solution
from mpsearch.core.tables import CostTable, SensitivityTable
from mpsearch.formulation import Formulation, formulate
from mpsearch.solvers import solve
from mpsearch.solvers.interaction_search import MOST_ROUNDS
from mpsearch.solvers.interactions import solve_interactions

# How far numbers are trusted to know interactions: at 0 fully, at 1 not at all. At 0 few
# numbers are overfitted; the additive optimum itself is rho = 1.
RHOS: Final = (0.25, 0.5, 0.75)
_MIDDLE: Final = 0.5
# The metric whose scores are a list to walk along, not terms of a sum.
_LIST: Final = "sqnr_list"
# Annealing ends by its rounds, so that a search repeats; the time is for machines that are stuck.
_ROUNDS_BY_COLUMNS: Final = 4608
_FEWEST_ROUNDS: Final = 2
_SECONDS: Final = 60.0


@final
@dataclass(frozen=True, kw_only=True)
class Proposals:
    """Choices by the name of what proposed them, with the problem that they solve."""

    formulation: Formulation
    choices: Mapping[str, Int[ndarray, " D"]] = field(default_factory=dict)


def portfolio(
    tables: Mapping[str, SensitivityTable],
    cost: CostTable,
    *,
    budgets: Sequence[Budget],
    fixed: Mapping[str, str],
    generator: Generator,
    solver: str = "auto",
) -> Proposals | None:
    """Return the optimum of every table, and of every view of interactions it has numbers for.

    None where the budgets leave no plan. The first table's problem is that of the search.

    Args:
        tables: Sensitivities by name.
        cost: Spending under one base and placement.
        budgets: Resolved limits.
        fixed: Format by layer name or pattern.
        generator: Of the random steps of an annealing.
        solver: Name of the solver of additive problems.
    """
    choices: dict[str, Int[ndarray, " D"]] = {}
    first: Formulation | None = None
    for name, table in tables.items():
        formulation = formulate(table, cost, budgets=budgets, fixed=fixed)
        first = first or formulation
        problem = formulation.problem
        is_list = table.metric == _LIST
        found = list_prefix(problem) if is_list else solve(problem, solver=solver).choice
        if found is None:
            continue
        choices[name] = np.asarray(found)
        numbers = block_numbers(table, formulation=formulation, base=cost.base)
        if numbers is not None and problem.edges is None:
            solutions = _interacting(problem, numbers, rhos=RHOS, generator=generator)
            choices |= {
                f"{name}, rho {rho:g}": np.asarray(solution.choice)
                for rho, solution in zip(RHOS, solutions, strict=True)
                if solution.choice is not None
            }
    if first is None or not choices:
        return None
    return Proposals(formulation=first, choices=choices)


def interacting_choice(
    table: SensitivityTable,
    cost: CostTable,
    *,
    budgets: Sequence[Budget],
    fixed: Mapping[str, str],
    seed: int,
) -> tuple[int, ...] | None:
    """Return what numbers with interactions choose at the middle rho; None where no plan fits."""
    formulation = formulate(table, cost, budgets=budgets, fixed=fixed)
    problem = formulation.problem
    numbers = block_numbers(table, formulation=formulation, base=cost.base)
    if numbers is None or problem.edges is not None:
        choice = solve(problem).choice
    else:
        generator = np.random.default_rng(seed)
        (solution,) = _interacting(problem, numbers, rhos=(_MIDDLE,), generator=generator)
        choice = solution.choice
    return None if choice is None else tuple(np.asarray(choice).tolist())


def _interacting(
    problem: Problem,
    numbers: Float32[ndarray, "N D F"],
    *,
    rhos: Sequence[float],
    generator: Generator,
) -> list[Solution]:
    rounds = min(MOST_ROUNDS, max(_FEWEST_ROUNDS, _ROUNDS_BY_COLUMNS // problem.loss.size))
    return solve_interactions(
        problem,
        numbers,
        rhos=rhos,
        generator=generator,
        time_limit_seconds=_SECONDS,
        rounds=rounds,
    )


def list_prefix(problem: Problem) -> Int[ndarray, " D"] | None:
    """Return what flipping formats in the order of their scores gives, the least loss first.

    Every block starts in its most expensive format. Each entry of the sorted list takes its
    block further down, never up again, until the budgets are kept. None where the list ends
    before. Source: Practical Mixed Precision, Pandey et al. (2023), as in AIMET.
    """
    mask = problem.mask
    rows = np.arange(len(mask))
    share = problem.cost.sum(axis=0, dtype=float)
    choice = np.where(mask, share, -np.inf).argmax(axis=1)
    blocks, formats = np.nonzero(mask)
    order = np.argsort(problem.loss[blocks, formats], kind="stable")
    for block, to in zip(blocks[order].tolist(), formats[order].tolist(), strict=True):
        if problem.fits(choice):
            break
        if share[block, to] < share[rows[block], choice[block]]:
            choice[block] = to
    return choice if problem.fits(choice) else None


def block_numbers(
    table: SensitivityTable, *, formulation: Formulation, base: str
) -> Float32[ndarray, "N D F"] | None:
    """Return a table's numbers by block and format of a formulation; None where it has none.

    Layers of a block change together, so their numbers add; the base changes nothing.
    """
    if table.numbers is None:
        return None
    rows = {name: place for place, name in enumerate(table.layers)}
    shape = (len(table.numbers), len(formulation.blocks), len(formulation.formats))
    found = np.zeros(shape, dtype=np.float32)
    for column, name in enumerate(formulation.formats):
        if name == base or name not in table.formats:
            continue
        source: Float[ndarray, "N L"] = table.numbers[:, :, table.formats.index(name)]
        for place, block in enumerate(formulation.blocks):
            found[:, place, column] = source[:, [rows[layer] for layer in block]].sum(axis=1)
    # Pairs that were not measured are not allowed either; a form cannot hold their NaN.
    return np.nan_to_num(found, copy=False)
