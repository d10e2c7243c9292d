"""A request says what the library's own search takes, no more and no less."""

import inspect
from typing import Any, Final, get_args

import pytest
from pydantic import ValidationError

from mpsearch.jobs.request import JobRequest, RangeMethod, TaskName
from mpsearch.quant.ranges import RANGE_METHODS
from mpsearch.tasks import TASKS
from mpsearch.workflow.search import search

BASE: Final[dict[str, Any]] = {
    "model": {"root": "r", "path": "model"},
    "calibration": {"root": "r", "path": "data.npz"},
}
GROUP: Final = {"name": "a", "layers": ["*"]}
# Where it runs and what it keeps are the server's to say.
OF_THE_SERVER: Final = {"device", "cache", "progress"}
# Which workers do it is a question of services alone.
OF_REQUESTS: Final = {"queue"}


def test_a_request_has_the_parameters_of_search() -> None:
    offered = set(inspect.signature(search).parameters) - OF_THE_SERVER
    assert set(JobRequest.model_fields) == offered | OF_REQUESTS


def test_its_defaults_are_those_of_search() -> None:
    parameters = inspect.signature(search).parameters
    for name in JobRequest.model_fields.keys() - OF_REQUESTS:
        field = JobRequest.model_fields[name]
        if not field.is_required() and parameters[name].default is not inspect.Parameter.empty:
            assert field.default == parameters[name].default, name


def test_names_are_those_of_the_registries() -> None:
    assert set(get_args(TaskName)) == {"auto", *TASKS}
    assert set(get_args(RangeMethod)) == set(RANGE_METHODS)


@pytest.mark.parametrize(
    "aim",
    [
        {"budgets": {"weight_bytes": "25%"}},
        {"max_drop": 0.5},
        {"max_drop": 1, "budgets": {"bops": "50%"}},
    ],
)
def test_budgets_or_a_drop_are_an_aim(aim: dict[str, Any]) -> None:
    assert JobRequest.model_validate({**BASE, **aim}).model_dump(exclude_none=True).keys() >= set(
        aim
    )


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({}, "Neither budgets nor max_drop"),
        ({"max_drop": 0}, "greater than 0"),
        ({"max_drop": 0.5, "effort": 0}, "greater than 0"),
        ({"max_drop": 0.5, "effort": 1e9}, "less than or equal to 1000"),
        ({"max_drop": 0.5, "seconds": -1}, "greater than 0"),
        ({"max_drop": 0.5, "ranges": "best"}, "percentile"),
        ({"max_drop": 0.5, "pairs": "both"}, "jointly"),
        ({"max_drop": 0.5, "groups": [GROUP]}, "at least 2 items"),
        ({"max_drop": 0.5, "groups": [GROUP, {**GROUP, "kind": "x"}]}, "Extra inputs"),
        ({"max_drop": 0.5, "workloads": {f"b{i}": {"batch": i} for i in range(1, 10)}}, "8 items"),
    ],
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        JobRequest.model_validate({**BASE, **wrong})
