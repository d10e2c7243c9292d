"""Laws of progress."""

from hypothesis import given
from hypothesis import strategies as st

from mpsearch.core.progress import ProgressEvent, silent, tracked


@given(st.lists(st.integers(), max_size=20))
def test_tracking_changes_no_item_and_reports_each(items: list[int]) -> None:
    events: list[ProgressEvent] = []
    assert list(tracked(items, "read", total=len(items), progress=events.append)) == items
    assert [event.done for event in events] == list(range(len(items) + 1))
    assert {event.total for event in events} == {len(items)}


def test_nothing_is_left_at_the_end_and_nothing_is_known_at_the_start() -> None:
    events: list[ProgressEvent] = []
    list(tracked("abc", "read", total=3, progress=events.append))
    assert events[0].seconds_left is None
    assert events[-1].seconds_left == 0.0


def test_an_item_counts_when_its_work_is_done_and_not_before() -> None:
    events: list[ProgressEvent] = []
    for index, _ in enumerate(tracked("abc", "read", total=3, progress=events.append)):
        assert events[-1].done == index


def test_more_items_than_announced_never_leave_negative_time() -> None:
    events: list[ProgressEvent] = []
    list(tracked("abcd", "read", total=2, progress=events.append))
    assert events[-1].seconds_left == 0.0


def test_work_without_a_listener_is_silent() -> None:
    assert list(tracked("ab", "read", total=2)) == ["a", "b"]
    silent(ProgressEvent(phase="read", done=0, total=1, seconds=0.0))
