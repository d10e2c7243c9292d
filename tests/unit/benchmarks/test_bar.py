"""Laws of the bars that benchmarks print."""

import json
import subprocess
import sys

import pytest

from benchmarks.bar import Bar, Target, judged, to_line


def test_an_empty_comparison_fails() -> None:
    bar = judged("error", [], target=Target(unit="%"))
    assert bar.value is None
    assert not bar.passed


def test_a_bar_without_a_value_cannot_pass() -> None:
    with pytest.raises(ValueError, match="empty comparison"):
        Bar(bar="error", value=None, unit="%", target="reported", passed=True)


def test_a_value_that_is_no_number_fails() -> None:
    assert not judged("error", [float("nan")], target=Target(unit="%", at_most=1)).passed
    assert not judged("error", [float("nan")], target=Target(unit="%")).passed


def test_a_target_holds_at_its_limits_and_not_beyond() -> None:
    target = Target(unit="%", at_least=1, at_most=4)
    assert target.text == "at least 1 and at most 4 %"
    assert [target.is_met(value) for value in (0.99, 1.0, 4.0, 4.01)] == [False, True, True, False]


def test_the_statistic_is_what_is_judged() -> None:
    target = Target(unit="%", at_most=2)
    assert judged("error", [1.0, 3.0], target=target).value == pytest.approx(2.0)
    assert not judged("error", [1.0, 3.0], target=target, statistic="max").passed
    assert judged("error", [1.0, 3.0], target=target, statistic="min").extra["largest"] == 3.0


def test_a_line_is_one_json_object_with_machine_versions_and_command() -> None:
    bar = judged("error", [1.0], target=Target(unit="%", at_most=2), extra={"plans": 12})
    line = to_line(bar, command="python -m benchmarks path")
    assert "\n" not in line
    read = json.loads(line)
    assert read["passed"] is True
    assert read["extra"] == {"plans": 12}
    assert read["command"] == "python -m benchmarks path"
    assert set(read["machine"]) == {"name", "cores", "flags", "system"}
    assert "numpy" in read["versions"]


def test_an_unknown_area_is_refused_with_the_known_ones() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "nowhere"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "path" in done.stderr
