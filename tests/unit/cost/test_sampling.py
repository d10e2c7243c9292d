"""Which plans are measured."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mpsearch.cost.sampling import assignment_of, choice_of, covering_choices, random_choices

ALLOWED = np.array([[1, 1, 0], [1, 0, 1], [1, 1, 1], [0, 1, 0]] * 5, dtype=np.bool_)


def test_random_plans_hold_only_allowed_formats_and_repeat_by_seed() -> None:
    first = random_choices(ALLOWED, count=50, generator=np.random.default_rng(1))
    again = random_choices(ALLOWED, count=50, generator=np.random.default_rng(1))
    assert (first == again).all()
    assert ALLOWED[np.arange(len(ALLOWED)), first].all()


def test_random_plans_have_mixed_shares() -> None:
    free = np.ones((60, 2), dtype=np.bool_)
    share = random_choices(free, count=200, generator=np.random.default_rng(2)).mean(axis=1)
    # Half and half in each layer would leave a standard deviation of .5 / sqrt(60) = .065.
    assert share.std() > 0.25
    assert abs(share.mean() - 0.5) < 0.08


@given(st.integers(0, 10_000), st.integers(0, 4))
def test_covering_plans_show_each_signature_in_each_format(seed: int, measured: int) -> None:
    generator = np.random.default_rng(seed)
    signatures = [f"s{n}" for n in generator.integers(0, 4, 8)]
    by_signature = {name: generator.random(3) < 0.6 for name in sorted(set(signatures))}
    allowed = np.array([by_signature[name] for name in signatures])
    allowed[:, 0] |= ~allowed.any(axis=1)
    rows = random_choices(allowed, count=measured, generator=generator)
    cover = covering_choices(allowed, signatures=signatures, measured=rows)
    both = np.concatenate([rows, cover])
    assert allowed[np.arange(8), both].all()
    seen = {(signatures[layer], int(f)) for row in both for layer, f in enumerate(row)}
    wanted = {(signatures[layer], int(f)) for layer, f in np.argwhere(allowed)}
    assert seen == wanted
    assert len(cover) <= 3


def test_choice_and_assignment_are_inverse() -> None:
    layers, formats = ("a", "b"), ("fp32", "w8")
    assignment = {"b": "fp32", "a": "w8"}
    choice = choice_of(assignment, layers=layers, formats=formats)
    assert choice.tolist() == [1, 0]
    assert assignment_of(choice, layers=layers, formats=formats) == assignment
