"""A portfolio holds the optimum of every table, and of every view of its interactions."""

from itertools import product

import numpy as np
import pytest
from jaxtyping import Int
from numpy import ndarray

from mpsearch.core.hardware import Device, Support
from mpsearch.core.plan import Budget
from mpsearch.core.problem import Problem
from mpsearch.core.tables import CostTable, SensitivityTable
from mpsearch.formulation import formulate
from mpsearch.search.portfolio import RHOS, block_numbers, list_prefix, portfolio

LAYERS = ("a", "b", "c", "d")
FORMATS = ("w8", "w4", "w2")
BITS = Budget(name="weight_bits", text="", limit=1800.0, unit="bits")


def table(seed: int, *, metric: str = "output_probe", numbers: bool = True) -> SensitivityTable:
    """Return a random table; its losses are the mean squares of its numbers."""
    random = np.random.default_rng(seed)
    scale = np.array([0.1, 1.0, 4.0])
    found = random.normal(size=(20, 4, 3)).astype(np.float32) * scale.astype(np.float32)
    found += random.normal(size=(20, 1, 1)).astype(np.float32) * scale.astype(np.float32)
    return SensitivityTable(
        layers=LAYERS,
        formats=FORMATS,
        loss=np.square(found, dtype=np.float64).mean(axis=0),
        stderr=np.zeros((4, 3)),
        metric=metric,
        unit="squared output",
        numbers=found if numbers else None,
    )


def cost(shared: tuple[tuple[int, ...], ...] = ()) -> CostTable:
    """Return bits of four layers of a hundred weights each."""
    return CostTable(
        layers=LAYERS,
        formats=("fp32", *FORMATS),
        base="fp32",
        placement="layer_inputs",
        amount={"weight_bits": np.array([[3200, 800, 400, 200]] * 4)},
        constant={},
        support=((Support.NATIVE,) * 4,) * 4,
        shared_weights=shared,
        device=Device(name="test", runtime="simulation", threads=1),
    )


def form(numbers: ndarray, choice: Int[ndarray, " D"], *, rho: float) -> float:
    """Return (1 - rho) mean (sum u)^2 + rho sum mean u^2, by its definition."""
    picked = numbers[:, np.arange(len(choice)), choice].astype(float)
    together = (picked.sum(axis=1) ** 2).mean()
    return float((1 - rho) * together + rho * (picked**2).mean(axis=0).sum())


@pytest.mark.parametrize("seed", range(4))
def test_every_view_is_solved_to_its_optimum(seed: int) -> None:
    tables = {"probe": table(seed), "plain": table(seed + 50, numbers=False)}
    found = portfolio(tables, cost(), budgets=[BITS], fixed={}, generator=np.random.default_rng(0))
    assert found is not None
    assert list(found.choices) == ["probe", *(f"probe, rho {rho:g}" for rho in RHOS), "plain"]
    problem = found.formulation.problem
    every = [np.array(c) for c in product(range(4), repeat=4)]
    fitting = [c for c in every if problem.fits(c)]
    numbers = block_numbers(tables["probe"], formulation=found.formulation, base="fp32")
    assert numbers is not None
    for rho in RHOS:
        best = min(form(numbers, c, rho=rho) for c in fitting)
        assert form(numbers, found.choices[f"probe, rho {rho:g}"], rho=rho) == pytest.approx(best)
    for name, each in tables.items():
        loss = formulate(each, cost(), budgets=[BITS]).problem
        least = min(loss.value(c) for c in fitting)
        assert loss.value(found.choices[name]) == pytest.approx(least)


def test_numbers_of_layers_that_share_a_weight_add_up() -> None:
    sensitivity = table(1)
    formulation = formulate(sensitivity, cost(shared=((1, 3),)), budgets=[BITS])
    numbers = block_numbers(sensitivity, formulation=formulation, base="fp32")
    assert numbers is not None
    assert sensitivity.numbers is not None
    assert numbers.shape == (20, 3, 4)
    wanted = sensitivity.numbers[:, 1] + sensitivity.numbers[:, 3]
    np.testing.assert_array_equal(numbers[:, 1, 1:], wanted)
    assert (numbers[:, :, 0] == 0).all()


def test_no_plan_within_the_budgets_gives_no_portfolio() -> None:
    tiny = Budget(name="weight_bits", text="", limit=799.0, unit="bits")
    generator = np.random.default_rng(0)
    tables = {"probe": table(0)}
    assert portfolio(tables, cost(), budgets=[tiny], fixed={}, generator=generator) is None


def test_a_pin_holds_in_every_proposal() -> None:
    fixed = {"b": "fp32"}
    budget = Budget(name="weight_bits", text="", limit=5000.0, unit="bits")
    found = portfolio(
        {"probe": table(2)},
        cost(),
        budgets=[budget],
        fixed=fixed,
        generator=np.random.default_rng(0),
    )
    assert found is not None
    assert all(choice[1] == 0 for choice in found.choices.values())


def test_a_prefix_flips_in_the_order_of_the_list_until_it_fits() -> None:
    """Worked by hand: 8, 4, 2 bits; the flips by score are c4, a4, c2, b4, ..."""
    problem = Problem(
        loss=np.array([[0.0, 2.0, 6.0], [0.0, 4.0, 9.0], [0.0, 1.0, 3.0]]),
        cost=np.array([[[8, 4, 2]] * 3]),
        limit=np.array([14]),
    )
    found = list_prefix(problem)
    assert found is not None
    assert found.tolist() == [1, 0, 2]


def test_a_prefix_never_flips_a_block_up_again() -> None:
    """With two bits scored before four, four comes too late."""
    problem = Problem(
        loss=np.array([[0.0, 2.0, 1.0], [0.0, 4.0, 3.0]]),
        cost=np.array([[[8, 4, 2]] * 2]),
        limit=np.array([4]),
    )
    found = list_prefix(problem)
    assert found is not None
    assert found.tolist() == [2, 2]


def test_a_prefix_that_never_fits_is_none() -> None:
    problem = Problem(loss=np.zeros((2, 2)), cost=np.array([[[8, 4]] * 2]), limit=np.array([7]))
    assert list_prefix(problem) is None
