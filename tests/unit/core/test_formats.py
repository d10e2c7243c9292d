"""Laws of number formats."""

from itertools import product

import pytest

from mpsearch.core.formats import BASES, FORMATS, Clipping, Granularity, format_named, parts_of
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


def test_composed_names_say_what_they_hold() -> None:
    """Every combination has a name of its own, and no two names mean the same."""
    seen = set()
    for bits, scales, inputs, zero, clip in product(
        range(2, 9),
        ("", "t", "g64"),
        ("", "a8", "a16", "a8-token", "a4-token"),
        ("", "-asymmetric"),
        ("", "-mse"),
    ):
        name = f"w{bits}{scales}{inputs}{zero}{clip}"
        found = format_named(name)
        assert found.name == name
        assert found.weight.bits == bits
        assert found.weight.granularity == {"": "channel", "t": "tensor", "g64": "group"}[scales]
        assert found.weight.group_size == (64 if scales == "g64" else None)
        assert found.weight.symmetric == (zero == "")
        assert found.weight.clipping is (Clipping.MSE if clip else Clipping.MINMAX)
        assert found.is_static == (inputs == "a8")
        assert (found.activation is None) == (inputs == "")
        assert not found.is_floating
        assert found.layout == f"w{bits}{scales}{inputs}{zero}"
        assert parts_of(name) == (f"w{bits}{scales}{zero}{clip}", inputs)
        seen.add((found.weight, found.activation))
    assert len(seen) == 7 * 3 * 5 * 2 * 2


@pytest.mark.parametrize("name", [name for name in FORMATS if name not in BASES])
def test_a_named_format_is_what_its_name_composes_to(name: str) -> None:
    weight, inputs = parts_of(name)
    assert format_named(name).weight == format_named(weight).weight
    assert not inputs or format_named(name).activation == format_named(inputs).activation


def test_an_input_alone_leaves_the_weight_as_it_is() -> None:
    assert format_named("a8").weight == format_named("fp32").weight
    assert not format_named("a8").is_floating
    token = format_named("a6-token").activation
    assert token is not None
    assert (token.bits, token.dynamic, token.granularity) == (6, True, Granularity.TOKEN)


@pytest.mark.parametrize(
    "name",
    ["", "w9", "w1", "w4g0", "w4g", "w4a4", "w4a9-token", "w4a16-token", "-mse", "a8-mse",
     "w4-mse-asymmetric", "w4-MSE", "w4 ", "w4g1234567", "w4tg64", "W4"],
)  # fmt: skip
def test_a_name_in_another_order_or_out_of_range_is_refused(name: str) -> None:
    with pytest.raises(FormatError, match=r"is unknown.*w4-mse"):
        format_named(name)
