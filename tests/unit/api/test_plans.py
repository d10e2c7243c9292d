"""Laws of solving again: the answer is that of the tables, wherever they come from."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from mpsearch.api.service import Service
from mpsearch.api.stored_tables import read_tables
from mpsearch.jobs.job import Job
from mpsearch.workflow.solve import solve_tables

TABLES: dict[str, Any] = {
    "layers": ["a", "b"],
    "formats": ["fp32", "w8", "w4"],
    "sensitivity": {"loss": [[0.0, 0.1, 1.0], [0.0, 0.2, 5.0]]},
    "cost": {"amount": {"weight_bytes": [[400, 100, 50], [400, 100, 50]]}},
}
QUANTIZER = {
    "scale": 0.1,
    "zero_point": 3,
    "low": -0.3,
    "high": 25.2,
    "method": "minmax",
    "samples": 8,
}


def test_a_job_is_solved_as_its_tables_are(
    client: TestClient, service: Service, finished: Callable[..., Job]
) -> None:
    job = finished(layers=12)
    sensitivity, costs = read_tables(service.settings.data.result(job.id))
    for share in ("30%", "60%"):
        budgets = {"weight_bytes": share}
        expected = solve_tables(sensitivity, costs, budgets=budgets).plan.assignment
        for name in (job.id, f"jobs/{job.id}"):
            answer = client.post("/v1/plans:solve", json={"job": name, "budgets": budgets})
            assert answer.status_code == 200
            assert answer.json()["plan"]["assignment"] == expected
            assert answer.json()["solution"]["termination"] == "optimal"


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        ("700B", {"a": "fp32", "b": "w8"}),
        ("160B", {"a": "w4", "b": "w8"}),
        ("100B", {"a": "w4", "b": "w4"}),
    ],
)
def test_posted_tables_are_solved(
    client: TestClient, budget: str, expected: dict[str, str]
) -> None:
    # Of 700 bytes either layer could be fp32; keeping b is worth 0.2, keeping a 0.1.
    answer = client.post(
        "/v1/plans:solve", json={"tables": TABLES, "budgets": {"weight_bytes": budget}}
    )
    found = answer.json()["plan"]["assignment"]
    assert found == (expected if budget != "700B" else {"a": "w8", "b": "fp32"})


def test_posted_quantizers_are_those_of_the_plan(client: TestClient) -> None:
    sensitivity = {**TABLES["sensitivity"], "quantizers": {"a": QUANTIZER, "b": QUANTIZER}}
    tables = {**TABLES, "formats": ["fp32", "w8a8", "w4"], "sensitivity": sensitivity}
    body = {"tables": tables, "budgets": {"weight_bytes": "700B"}}
    plan = client.post("/v1/plans:solve", json=body).json()["plan"]
    assert plan["assignment"] == {"a": "w8a8", "b": "fp32"}
    assert plan["quantizers"] == {"a": {**QUANTIZER, "exponents": []}}


def test_fixed_layers_stay(client: TestClient) -> None:
    body = {"tables": TABLES, "budgets": {"weight_bytes": "90%"}, "fixed": {"a": "w4"}}
    assert client.post("/v1/plans:solve", json=body).json()["plan"]["assignment"]["a"] == "w4"


def test_an_infeasible_budget_is_told_what_is_reachable(client: TestClient) -> None:
    answer = client.post(
        "/v1/plans:solve", json={"tables": TABLES, "budgets": {"weight_bytes": "99B"}}
    )
    assert answer.status_code == 422
    assert answer.json()["smallest"] == {"weight_bytes": 100.0}


def changed(**parts: Any) -> dict[str, Any]:  # noqa: ANN401 - any part of the tables
    return {"tables": {**TABLES, **parts}, "budgets": {"weight_bytes": "50%"}}


@pytest.mark.parametrize(
    "body",
    [
        {"budgets": {"weight_bytes": "50%"}},
        {"job": "01939f7e-7a5b-7c3d-9e1f-2a3b4c5d6e7f", **changed()},
        changed(layers=["a", "a"]),
        changed(formats=["fp32", "w8", "w8"]),
        changed(formats=["w8", "fp32", "w4"]),
        changed(formats=["fp32", "w8", "w99"]),
        changed(formats=["fp32", "w8a8", "w4"]),
        changed(
            sensitivity={
                **TABLES["sensitivity"],
                "quantizers": {"a": {**QUANTIZER, "scale": 1e400}},
            }
        ),
        changed(sensitivity={"loss": [[0.0, 0.1, 1.0]]}),
        changed(sensitivity={"loss": [[0.0, 0.1], [0.0, 0.2]]}),
        changed(sensitivity={"loss": [[0.0, 0.1, 1e400], [0.0, 0.2, 5.0]]}),
        changed(cost={"amount": {"weight_bytes": [[1, 1, 1]]}}),
        changed(cost={"amount": {"weight_bytes": [[1, 1, 2**60], [1, 1, 1]]}}),
        changed(cost={"amount": {"gold": [[1, 1, 1], [1, 1, 1]]}}),
        changed(cost={"amount": {"bops": [[1, 1, 1], [1, 1, 1]]}}),
        {**changed(), "solver": "guess"},
        {**changed(), "fixed": {"nothing": "w8"}},
    ],
)
def test_tables_that_cannot_be_right_are_refused(client: TestClient, body: dict[str, Any]) -> None:
    import json

    # By hand: an infinity is written as people write it, 1e400 or Infinity.
    answer = client.post(
        "/v1/plans:solve",
        content=json.dumps(body),
        headers={"content-type": "application/json"},
    )
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_job_without_tables_is_refused(client: TestClient, service: Service) -> None:
    budgets = {"weight_bytes": "50%"}
    waiting = service.store.add({})
    assert (
        client.post("/v1/plans:solve", json={"job": waiting.id, "budgets": budgets}).status_code
        == 409
    )
    unknown = "01939f7e-7a5b-7c3d-9e1f-2a3b4c5d6e7f"
    assert (
        client.post("/v1/plans:solve", json={"job": unknown, "budgets": budgets}).status_code == 404
    )


def test_the_largest_posted_amounts_still_sum_exactly() -> None:
    from mpsearch.api.posted_tables import Amount
    from mpsearch.core.problem import EXACT_LIMIT

    largest = next(item.le for item in Amount.__metadata__[0].metadata if hasattr(item, "le"))  # type: ignore[attr-defined]  # typing hides it
    assert largest * 10_000 < EXACT_LIMIT
    assert np.int64(largest) == largest
