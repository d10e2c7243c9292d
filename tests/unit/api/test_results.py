"""Laws of results: handed out as they are, once there are any."""

from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient

from mpsearch.api.service import Service
from mpsearch.core.files import plan_from_dict
from mpsearch.jobs.job import Job, JobState

RESULTS = ("plan", "report", "model", "frontier", "verification")


def test_a_plan_is_one_that_load_plan_reads(
    client: TestClient, finished: Callable[..., Job]
) -> None:
    answer = client.get(f"/v1/jobs/{finished().id}/plan")
    assert plan_from_dict(answer.json(), origin="api").assignment == {"encoder.0": "w8"}


def test_a_report_can_run_nothing(client: TestClient, finished: Callable[..., Job]) -> None:
    answer = client.get(f"/v1/jobs/{finished().id}/report")
    assert answer.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "sandbox" in answer.headers["content-security-policy"]


def test_a_model_is_there_where_one_was_built(
    client: TestClient, service: Service, finished: Callable[..., Job]
) -> None:
    job = finished()
    assert client.get(f"/v1/jobs/{job.id}/model").status_code == 404
    (service.settings.data.result(job.id) / "model.onnx").write_bytes(b"onnx")
    assert client.get(f"/v1/jobs/{job.id}/model").content == b"onnx"
    assert client.get(f"/v1/jobs/{job.id}").json()["response"]["model"].endswith("/model")


@pytest.mark.parametrize("result", RESULTS)
def test_there_is_none_before_the_end(client: TestClient, service: Service, result: str) -> None:
    job = service.store.add({})
    for _ in range(2):
        answer = client.get(f"/v1/jobs/{job.id}/{result}")
        assert answer.status_code == 409
        assert job.id in answer.json()["detail"]
        service.store.finish(job.id, state=JobState.FAILED)
