"""Budgets mean what people write."""

import pytest

from mpsearch.errors import BudgetError
from mpsearch.formulation import Yardsticks, parse_budgets, resolve_budgets

YARDSTICKS = Yardsticks(
    full_precision={"weight_bytes": 1000.0, "latency_ns": 8e6, "latency_ns@b32": 4e7},
    fastest={"latency_ns": 2e6, "latency_ns@b32": 1e7},
    weights=200,
)


@pytest.mark.parametrize(
    ("name", "text", "limit"),
    [
        ("weight_bytes", "12MB", 12e6),
        ("weight_bytes", "1.5 KiB", 1536.0),
        ("weight_bytes", "25%", 250.0),
        ("latency", "4ms", 4e6),
        ("latency", "4\N{MICRO SIGN}s", 4e3),
        ("latency", "4\N{GREEK SMALL LETTER MU}s", 4e3),
        ("energy", "4mJ", 4e6),
        ("latency@b32", "4ms", 4e6),
        ("latency@b32", "50%", 2e7),
        ("latency@b32", "110% of fastest", 1.1e7),
        ("latency", "50%", 4e6),
        ("latency", "115% of fastest", 2.3e6),
        ("weight_bits", "3.5", 700.0),
        ("weight_bits", 3.5, 700.0),
    ],
)
def test_a_budget_resolves_to_its_closed_form(name: str, text: str | float, limit: float) -> None:
    (budget,) = resolve_budgets(parse_budgets({name: text}), yardsticks=YARDSTICKS)
    assert budget.limit == pytest.approx(limit, rel=1e-12)


@pytest.mark.parametrize(
    ("name", "text", "fact"),
    [
        ("weight_bytes", "12", "no unit"),
        ("weight_bytes", "-12MB", "not positive"),
        ("weight_bytes", "0MB", "not positive"),
        ("weight_bytes", "nanMB", "not a number"),
        ("weight_bytes", "12 parsec", "unknown unit"),
        ("weight_bytes", "115% of fastest", "unknown unit"),
        ("latency", "4MB", "unknown unit"),
        ("speed", "4ms", "unknown"),
        ("latency@", "4ms", "unknown"),
        ("weight_bytes@b32", "4MB", "unknown"),
        ("weight_bits", "3bits", "unknown unit"),
    ],
)
def test_a_bad_budget_is_named_with_its_fact(name: str, text: str, fact: str) -> None:
    with pytest.raises(BudgetError, match=fact) as caught:
        parse_budgets({name: text})
    assert name in str(caught.value)


def test_no_budget_at_all_is_refused() -> None:
    with pytest.raises(BudgetError, match="No budget"):
        parse_budgets({})


def test_a_share_of_what_was_not_measured_is_refused() -> None:
    parsed = parse_budgets({"bops": "25%"})
    with pytest.raises(BudgetError, match="not measured"):
        resolve_budgets(parsed, yardsticks=YARDSTICKS)
