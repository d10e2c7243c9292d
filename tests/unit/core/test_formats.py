"""Laws of number formats."""

import pytest

from mpsearch.core.formats import BASES, FORMATS, Granularity, format_named
from mpsearch.errors import FormatError


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_is_found_under_its_own_name(name: str) -> None:
    assert format_named(name).name == name


def test_the_names_that_plans_use_are_there() -> None:
    assert {"fp32", "bf16", "w8a8", "w8", "w4", "w4g128"} <= set(FORMATS)
    assert {f"w{bits}" for bits in range(2, 9)} <= set(FORMATS)


@pytest.mark.parametrize("name", FORMATS)
def test_only_the_bases_are_floating(name: str) -> None:
    assert format_named(name).is_floating == (name in BASES)


@pytest.mark.parametrize("bits", range(2, 9))
def test_the_name_of_a_weight_format_tells_its_bits(bits: int) -> None:
    weight = format_named(f"w{bits}").weight
    assert weight.bits == bits
    assert weight.granularity is Granularity.CHANNEL


@pytest.mark.parametrize("name", FORMATS)
def test_a_group_size_belongs_to_groups(name: str) -> None:
    weight = format_named(name).weight
    assert (weight.group_size is not None) == (weight.granularity is Granularity.GROUP)


def test_w8a8_quantises_its_input_statically_with_a_zero_point() -> None:
    activation = format_named("w8a8").activation
    assert activation is not None
    assert (activation.bits, activation.symmetric, activation.dynamic) == (8, False, False)


def test_an_unknown_format_is_refused_with_the_known_ones() -> None:
    with pytest.raises(FormatError, match=r"'int3' is unknown.*fp32.*w8a8"):
        format_named("int3")
