"""Laws of numbers in words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpsearch.cli.words import duration, quantity, size


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (3599.6, "1 h 0 min"),
        (7260.0, "2 h 1 min"),
    ],
)
def test_durations_round_without_sixty_seconds(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@given(st.floats(0, 59 * 3600))
def test_no_duration_shows_sixty(seconds: float) -> None:
    assert " 60 " not in f" {duration(seconds)}"


@pytest.mark.parametrize(
    ("count", "words"),
    [(0.0, "0 B"), (999.0, "999 B"), (1e3, "1.0 kB"), (22.7e6, "22.7 MB"), (5e12, "5000.0 GB")],
)
def test_sizes_take_decimal_prefixes(count: float, words: str) -> None:
    assert size(count) == words


@pytest.mark.parametrize(
    ("value", "unit", "words"),
    [
        (999.0, "ns", "999 ns"),
        (2500.0, "ns", "2.50 us"),
        (4.2e6, "ns", "4.20 ms"),
        (3e9, "ns", "3.00 s"),
        (1e6, "B", "1.0 MB"),
        (0.5, "", "0.5"),
        (3.5, "bits", "3.5 bits"),
        (9e7, "bits", "90.0 Mbits"),
        (7.8e11, "BOPs", "780.0 GBOPs"),
        (0.25, "relative difference", "0.25 relative difference"),
        (None, "ns", "-"),
    ],
)
def test_quantities_read_in_their_unit(value: float | None, unit: str, words: str) -> None:
    assert quantity(value, unit) == words
