"""Workloads are read as people write them."""

import pytest

from mpsearch.errors import DataError
from mpsearch.workflow.workloads import WorkloadRequest, workloads_of

EXAMPLES = {"ids": (8, 16), "mask": (8, 16)}


def test_without_a_request_one_sample_of_the_example_serves() -> None:
    (found,) = workloads_of(None, examples=EXAMPLES)
    assert found.shapes == {"ids": (1, 16), "mask": (1, 16)}


def test_batch_and_length_set_the_first_two_dimensions() -> None:
    (found,) = workloads_of({"b2": {"batch": 2, "length": 32}}, examples=EXAMPLES)
    assert found.name == "b2"
    assert found.shapes == {"ids": (2, 32), "mask": (2, 32)}
    (image,) = workloads_of({"b": {"batch": 4}}, examples={"x": (1, 3, 8)})
    assert image.shapes == {"x": (4, 3, 8)}


@pytest.mark.parametrize(
    "request_", [{"w": {"ids": (1, 32)}}, {"w": {"ids": (1,), "mask": (1, 2)}}, {"w": {"batch": 0}}]
)
def test_shapes_that_do_not_fit_are_refused(request_: WorkloadRequest) -> None:
    with pytest.raises(DataError):
        workloads_of(request_, examples=EXAMPLES)


def test_several_workloads_keep_their_order_and_names() -> None:
    found = workloads_of({"b32": {"batch": 32}, "b1": {"batch": 1}}, examples=EXAMPLES)
    assert [(each.name, each.shapes["ids"]) for each in found] == [
        ("b32", (32, 16)),
        ("b1", (1, 16)),
    ]
