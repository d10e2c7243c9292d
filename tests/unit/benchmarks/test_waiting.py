"""A wait ends: with what was awaited, or with its name and how the log ends."""

from pathlib import Path

import pytest

from benchmarks.waiting import ending, waited_for


def test_what_is_found_ends_the_wait() -> None:
    answers = iter([None, "", "there", "later"])
    assert waited_for(lambda: next(answers), "an answer") == "there"
    assert next(answers) == "later"


def test_what_never_comes_is_named_with_the_end_of_the_log(tmp_path: Path) -> None:
    log = tmp_path / "serve.log"
    log.write_text("first words\n" + "x" * 10_000 + "\nlast words")
    with pytest.raises(TimeoutError, match="a job that never ends") as caught:
        waited_for(lambda: None, "a job that never ends", seconds=0.1, told=lambda: ending(log))
    assert "last words" in str(caught.value)
    assert "first words" not in str(caught.value)


def test_what_is_there_is_found_however_short_the_time() -> None:
    assert waited_for(lambda: 1, "one", seconds=0.0) == 1


def test_a_log_that_is_not_there_is_told(tmp_path: Path) -> None:
    assert "no serve.log" in ending(tmp_path / "serve.log")
