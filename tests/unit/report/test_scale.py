"""Laws of axes, numbers and the front."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpsearch.report.front import front_view
from mpsearch.report.numbers import ABSENT, TIMES, amount, plain, round_amount, seconds, share
from mpsearch.report.palette import swatches
from mpsearch.report.proof import promise_views
from mpsearch.report.scale import Scale, scale_of
from mpsearch.testing import example_result

_FINITE = st.floats(-1e9, 1e9).filter(lambda value: value == 0 or abs(value) > 1e-9)


@settings(deadline=None)  # a busy machine is no broken law
@given(values=st.lists(_FINITE, min_size=1, max_size=20))
def test_places_lie_on_the_axis_and_keep_the_order(values: list[float]) -> None:
    scale = scale_of(values)
    places = [scale.percent(value) for value in sorted(values)]
    assert places == sorted(places)
    assert all(0 <= place <= 100 for place in places)


@settings(deadline=None)  # a busy machine is no broken law
@given(values=st.lists(_FINITE, min_size=1, max_size=20))
def test_ticks_are_few_rising_and_on_the_axis(values: list[float]) -> None:
    scale = scale_of(values)
    ticks = scale.ticks()
    assert 1 <= len(ticks) <= 12
    assert list(ticks) == sorted(set(ticks))
    slack = 1e-9 * max(abs(scale.low), abs(scale.high))
    assert all(scale.low - slack <= tick <= scale.high + slack for tick in ticks)


def test_an_axis_over_decades_is_logarithmic_and_a_short_one_is_not() -> None:
    assert scale_of([1e-5, 1e-2]).logarithmic
    assert not scale_of([1.0, 8.0]).logarithmic
    scale = Scale(low=1e-4, high=1.0, logarithmic=True)
    assert scale.percent(1e-2) == pytest.approx(50)
    assert scale.percent(0.0) == scale.percent(-1.0) == 0
    assert scale.ticks() == pytest.approx((1e-4, 1e-3, 1e-2, 1e-1, 1.0))


def test_nothing_still_gives_an_axis() -> None:
    assert 0 <= scale_of([]).percent(0.0) <= 100
    assert 0 <= scale_of([math.nan, math.inf]).percent(1.0) <= 100


def test_numbers_have_three_digits_and_a_fitting_unit() -> None:
    assert amount(999.0, unit="B") == "999 B"
    assert amount(22_700_123.0, unit="B") == "22.7 MB"
    assert amount(1_500.0, unit="ns") == "1.50 µs"
    assert amount(-16_500.0, unit="ns") == "-16.5 µs"
    assert amount(3.5, unit="bits") == "3.50 bits"
    assert amount(0.0, unit="ns") == "0 ns"
    assert amount(math.nan, unit="B") == share(math.inf) == plain(math.nan) == ABSENT
    assert plain(-0.5) == "-0.500"
    assert plain(1234567.0) == f"1.23 {TIMES} 10⁶"
    assert share(1.0) == "100.0 %"
    assert share(0.99138) == "99.14 %"
    assert [round_amount(v, unit="") for v in (0.1, 2.5, 100.0, 0.0, 1e-5)] == [
        "0.1", "2.5", "100", "0", "10⁻⁵",
    ]  # fmt: skip
    assert seconds(3600.0) == "60 min 0 s"


def test_formats_have_their_own_colours_and_safe_keys() -> None:
    found = swatches(["w4", "w8a8", "bf16", "fp32", 'new";}', "w8", "w4"])
    assert list(found)[:2] == ["fp32", "bf16"]
    assert len({swatch.light for swatch in found.values()}) == len(found) == 6
    assert all(swatch.key.isalnum() for swatch in found.values())


def test_the_front_falls_from_left_to_right_and_marks_the_budget() -> None:
    layers = example_result.graph(blocks=1)
    plan = example_result.plan(layers)
    view = front_view(plan, front=example_result.front(plan), tried=example_result.tried(plan))
    assert view is not None
    marks = [mark for mark in view.marks if mark.kind == "front"]
    assert [mark.left for mark in marks] == sorted(mark.left for mark in marks)
    assert [mark.top for mark in marks] == sorted(mark.top for mark in marks)
    (returned,) = [mark for mark in view.marks if mark.kind == "returned"]
    assert view.limit is not None
    assert returned.left < view.limit.at
    assert [mark.kind for mark in view.marks].count("forecast") == 1
    assert view.path.count("V") == len(marks) - 1


def test_one_point_is_no_front() -> None:
    plan = example_result.plan(example_result.graph(blocks=1))
    assert front_view(plan, front=example_result.front(plan)[:1], tried=()) is None


def test_a_promise_is_drawn_inside_its_band_exactly_where_it_held() -> None:
    plan = example_result.plan(example_result.graph(blocks=1))
    for row, view in zip(
        example_result.verification(plan),
        promise_views(example_result.verification(plan)),
        strict=True,
    ):
        if row.predicted is None or not row.tolerance:
            continue
        assert view.band is not None
        assert view.dot is not None
        inside = view.band[0] <= view.dot <= view.band[0] + view.band[1]
        assert inside == (abs(row.measured - row.predicted) <= row.tolerance)
