"""Each group is solved by its own metric under its share; splits are those of MixDQ."""

from collections.abc import Mapping

import numpy as np
import pytest

from mpsearch.core.hardware import Device, Resource, Support
from mpsearch.core.plan import Budget
from mpsearch.core.tables import CostTable, SensitivityTable
from mpsearch.search.decoupled import decoupled
from mpsearch.search.portfolio import Proposals
from mpsearch.solvers import solve
from mpsearch.solvers.published import MetricGroup, group_problem, split_bits

FORMATS = ("w2", "w4", "w8")
BITS = np.array([2, 4, 8])
LAYERS = tuple(f"layer{place}" for place in range(10))
MEMBERS = {"content": LAYERS[:4], "quality": LAYERS[4:]}


def losses(seed: int) -> np.ndarray:
    """Return losses that fall with more bits, by hundreds in one group's metric."""
    random = np.random.default_rng(seed)
    return np.sort(random.lognormal(sigma=1.5, size=(len(LAYERS), 3)), axis=1)[:, ::-1].copy()


def weights(seed: int) -> np.ndarray:
    return np.random.default_rng(100 + seed).integers(10, 400, len(LAYERS))


def table(loss: np.ndarray, *, unit: str) -> SensitivityTable:
    return SensitivityTable(
        layers=LAYERS,
        formats=FORMATS,
        loss=loss,
        stderr=np.zeros_like(loss),
        metric=unit,
        unit=unit,
    )


def found(
    tables: Mapping[str, SensitivityTable], *, seed: int, bits: float, ratios: tuple[float, ...]
) -> Proposals | None:
    size = weights(seed)
    cost = CostTable(
        layers=LAYERS,
        formats=FORMATS,
        base="fp32",
        placement="layer_inputs",
        amount={Resource.WEIGHT_BITS: size[:, None] * BITS},
        constant={},
        support=((Support.NATIVE,) * 3,) * len(LAYERS),
        device=Device(name="test", runtime="simulation", threads=1),
    )
    limit = float(np.floor(bits * size.sum()))
    budget = Budget(name="weight_bits", text="", limit=limit, unit="bit")
    return decoupled(tables, members=MEMBERS, cost=cost, budgets=(budget,), fixed={}, ratios=ratios)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("ratio", [0.7, 1.0, 1.4])
def test_a_split_is_that_of_mixdq_solved_group_by_group(seed: int, ratio: float) -> None:
    first, second = losses(seed), losses(seed + 50)
    tables = {"content": table(first, unit="ssim"), "quality": table(second, unit="dB")}
    proposals = found(tables, seed=seed, bits=4.3, ratios=(ratio,))
    size = weights(seed)
    share = float(size[:4].sum() / size[4:].sum())
    expected = []
    for loss, rows, mean in zip(
        (first, second),
        (slice(0, 4), slice(4, None)),
        split_bits(4.3, ratio=ratio, weights=share),
        strict=True,
    ):
        group = MetricGroup(name="g", gain=-loss[rows], weights=size[rows], bits=BITS)
        solution = solve(group_problem(group, mean))
        assert solution.choice is not None
        expected.append(float(loss[rows][np.arange(len(size[rows])), solution.choice].sum()))
    assert proposals is not None
    (choice,) = proposals.choices.values()
    every = np.arange(len(LAYERS))
    # The limits are rounded down in other places, so a bit in thousands may be lost.
    assert first[every, choice][:4].sum() == pytest.approx(expected[0], rel=1e-3)
    assert second[every, choice][4:].sum() == pytest.approx(expected[1], rel=1e-3)


@pytest.mark.parametrize("factor", [1e-9, 1e9])
def test_the_unit_of_a_metric_decides_nothing(factor: float) -> None:
    first, second = losses(1), losses(2)
    plain = {"content": table(first, unit="ssim"), "quality": table(second, unit="dB")}
    scaled = {**plain, "quality": table(factor * second, unit="other")}
    one, other = (
        found(tables, seed=3, bits=4.0, ratios=(0.8, 1.0, 1.3)) for tables in (plain, scaled)
    )
    assert one is not None
    assert other is not None
    assert list(one.choices) == list(other.choices)
    for name, choice in one.choices.items():
        assert np.array_equal(choice, other.choices[name])


def test_a_greater_ratio_moves_bits_to_its_group() -> None:
    tables = {"content": table(losses(4), unit="ssim"), "quality": table(losses(5), unit="dB")}
    proposals = found(tables, seed=5, bits=4.0, ratios=(0.5, 1.0, 2.0))
    assert proposals is not None
    size = weights(5)
    spent = {
        name: int((size * BITS[choice])[:4].sum()) for name, choice in proposals.choices.items()
    }
    low, even, high = (spent[f"groups content {ratio}, quality 1"] for ratio in ("0.5", "1", "2"))
    assert low < even < high
    limit = np.floor(4.0 * size.sum())
    assert all((size * BITS[choice]).sum() <= limit for choice in proposals.choices.values())


def test_losses_of_other_groups_count_nothing() -> None:
    first, second = losses(6), losses(7)
    tables = {"content": table(first, unit="ssim"), "quality": table(second, unit="dB")}
    noisy = first.copy()
    noisy[4:] = 1e6
    other = {**tables, "content": table(noisy, unit="ssim")}
    one, two = (found(each, seed=6, bits=3.5, ratios=(1.0,)) for each in (tables, other))
    assert one is not None
    assert two is not None
    (choice,), (same,) = one.choices.values(), two.choices.values()
    assert np.array_equal(choice, same)


def test_what_rises_with_bits_is_smoothed_and_named(caplog: pytest.LogCaptureFixture) -> None:
    first = losses(8)
    first[0] = [1.0, 1.2, 0.9]
    tables = {"content": table(first, unit="ssim"), "quality": table(losses(9), unit="dB")}
    assert found(tables, seed=8, bits=4.0, ratios=(1.0,)) is not None
    assert "'layer0' in w4" in caplog.text


def test_a_budget_below_the_least_leaves_no_choice() -> None:
    tables = {"content": table(losses(1), unit="ssim"), "quality": table(losses(2), unit="dB")}
    assert found(tables, seed=1, bits=1.5, ratios=(1.0,)) is None
