"""Which residual additions a plan quantises, and under which keys."""

import pytest

from mpsearch.core.placement import (
    addend_keys,
    addend_quantizers,
    additions_with,
    quantised_additions,
)
from mpsearch.core.plan import ActivationQuantizer

_ADDITIONS = {"a": "a", "a#2": "a", "b": "b"}


def _quantizer(low: float) -> ActivationQuantizer:
    return ActivationQuantizer(
        scale=1.0, zero_point=0, low=low, high=255.0, method="minmax", samples=1
    )


def test_an_addition_is_quantised_where_its_layer_has_a_static_format() -> None:
    assert quantised_additions({"a": "w8a8", "b": "w8"}, additions=_ADDITIONS) == ("a", "a#2")
    assert quantised_additions({"a": "w8", "b": "w8a8"}, additions=_ADDITIONS) == ("b",)
    # A range that is found at run time is no range of the addends.
    assert not quantised_additions({"a": "w8a8-dynamic", "b": "bf16"}, additions=_ADDITIONS)


def test_a_plan_takes_the_quantisers_of_its_own_additions_only() -> None:
    keys = [key for addition in _ADDITIONS for key in addend_keys(addition)]
    every = {"a": _quantizer(-1.0)} | {
        key: _quantizer(-float(place)) for place, key in enumerate(keys)
    }
    found = addend_quantizers(every, assignment={"a": "w8", "b": "w8a8"}, additions=_ADDITIONS)
    assert found == {key: every[key] for key in addend_keys("b")}


def test_additions_come_back_from_the_keys_of_their_addends() -> None:
    quantizers = {
        key: _quantizer(0.0) for key in ("a", *addend_keys("b"), addend_keys("a#2")[1], "b")
    }
    assert additions_with(quantizers) == ("b", "a#2")


def test_an_addition_without_quantisers_is_refused() -> None:
    with pytest.raises(KeyError):
        addend_quantizers({}, assignment={"a": "w8a8", "b": "w8"}, additions=_ADDITIONS)
