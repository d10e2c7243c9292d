"""Laws of the whole application."""

import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from fastapi.testclient import TestClient

from mpsearch.api.service import Service
from mpsearch.jobs.request import RuntimeName, TaskName

WITHOUT_TORCH = """
import sys
from pathlib import Path
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "openvino", "onnx", "transformers"):
            raise AssertionError(f"{name} was imported")
        return None
sys.meta_path.insert(0, Refuse())
import pathlib
from mpsearch.api.app import build_app
from mpsearch.api.server import listen
from mpsearch.api.settings import Settings
from mpsearch.jobs.data_folder import DataFolder
from fastapi.testclient import TestClient
data = DataFolder(path=pathlib.Path(sys.argv[1]))
body = {
    "tables": {
        "layers": ["a"],
        "formats": ["fp32", "w8"],
        "sensitivity": {"loss": [[0.0, 0.1]]},
        "cost": {"amount": {"weight_bytes": [[400, 100]]}},
    },
    "budgets": {"weight_bytes": "50%"},
}
with TestClient(build_app(Settings(data=data)), base_url="http://127.0.0.1") as client:
    assert client.get("/v1/devices").status_code == 200
    assert client.post("/v1/plans:solve", json=body).status_code == 200
assert "mpsearch.worker" not in sys.modules
"""


def test_the_server_loads_no_torch_and_no_worker(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_requests_name_the_runtimes_and_tasks_that_exist() -> None:
    from mpsearch.runtimes import RUNTIMES
    from mpsearch.tasks import TASKS

    # Runners are shut in without the files of a GPU, so requests cannot ask for one.
    assert set(get_args(RuntimeName)) == set(RUNTIMES) - {"torch_cuda"}
    assert set(get_args(TaskName)) == {"auto", *TASKS}


def test_devices_are_those_that_a_worker_reported(client: TestClient, service: Service) -> None:
    assert client.get("/v1/devices").json() == {"devices": []}
    from mpsearch.worker.main import report_devices

    report_devices(service.fleet)
    devices = {item["runtime"]: item for item in client.get("/v1/devices").json()["devices"]}
    assert {item["queue"] for item in devices.values()} == {"dev:cpu"}
    assert "w8a8" in devices["openvino"]["formats"]
    assert devices["simulation"]["bases"] == ["fp32"]
    report_devices(service.fleet, queue="dev:h200")
    found = client.get("/v1/devices").json()["devices"]
    assert len(found) == 2 * len(devices)
    assert {item["queue"] for item in found} == {"dev:cpu", "dev:h200"}


def test_every_operation_is_documented_with_an_example(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    assert len(operations) >= 11
    for operation in operations:
        assert operation["summary"]
        content = operation.get("requestBody", {}).get("content", {})
        if "application/json" in content:
            assert content["application/json"]["examples"]


def test_another_name_for_this_machine_is_refused(client: TestClient) -> None:
    answer = client.get("/healthz", headers={"host": "evil.example"})
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_fault_of_ours_is_a_problem_without_its_innards(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("inner secret")

    monkeypatch.setattr("mpsearch.jobs.fleet.Fleet.devices", fail)
    answer = client.get("/v1/devices")
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert "secret" not in answer.text
