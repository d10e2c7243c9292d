"""A server without a worker, and jobs that have ended."""

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from mpsearch.api.app import build_app
from mpsearch.api.service import Service
from mpsearch.api.settings import Settings
from mpsearch.core.files import save_plan, save_table, write_atomically
from mpsearch.core.hardware import Device, Resource, Support
from mpsearch.core.plan import Plan
from mpsearch.core.tables import CostTable, SensitivityTable
from mpsearch.jobs.data_folder import DataFolder
from mpsearch.jobs.job import Job, JobState

FORMATS = ("fp32", "w8", "w4")
LARGEST_JSON = 200_000
LARGEST_BLOB = 300_000


def save_tables(folder: Path, *, layers: int, formats: tuple[str, ...] = FORMATS) -> None:
    """Write tables in which narrower formats cost less and hurt more."""
    generator = np.random.default_rng(0)
    names = tuple(f"encoder.{place}" for place in range(layers))
    hurt = np.cumsum(generator.random((layers, len(formats))), axis=1) - 0.5
    hurt[:, 0] = 0.0
    bits = np.array([32 // 2**place for place in range(len(formats))])
    sizes = generator.integers(100, 10_000, size=(layers, 1))
    table = SensitivityTable(
        layers=names, formats=formats, loss=hurt, stderr=hurt / 10, metric="m", unit="u"
    )
    cost = CostTable(
        layers=names,
        formats=formats,
        base="fp32",
        placement="layer_inputs",
        amount={Resource.WEIGHT_BYTES: sizes * bits},
        constant={},
        support=((Support.NATIVE,) * len(formats),) * layers,
        device=Device(name="cpu", runtime="openvino", threads=1),
    )
    save_table(table, folder / "sensitivity.npz")
    save_table(cost, folder / "costs-fp32-layer_inputs.npz")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an allow-listed folder with a model and data that look right from outside."""
    folder = tmp_path_factory.mktemp("root")
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text("{}")
    header = b"{}      "
    (folder / "model" / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    (folder / "data.jsonl").write_text('{"text": "a"}\n')
    return folder


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Settings:
    """Return settings with small limits."""
    return Settings(
        data=DataFolder(path=tmp_path_factory.mktemp("data")),
        roots={"r": root},
        largest_json=LARGEST_JSON,
        largest_blob=LARGEST_BLOB,
    )


@pytest.fixture(scope="module")
def client(settings: Settings) -> Iterator[TestClient]:
    """Return a client of a running application."""
    with TestClient(
        build_app(settings), base_url="http://127.0.0.1", raise_server_exceptions=False
    ) as running:
        yield running


@pytest.fixture(scope="module")
def service(client: TestClient) -> Service:
    """Return what the routes work with."""
    found: Any = client.app
    assert isinstance(found.state.service, Service)
    return found.state.service


@pytest.fixture
def body() -> dict[str, Any]:
    """Return a request that is accepted."""
    return {
        "model": {"root": "r", "path": "model"},
        "calibration": {"root": "r", "path": "data.jsonl"},
        "budgets": {"weight_bytes": "25%"},
    }


@pytest.fixture
def upload(client: TestClient) -> Callable[[bytes], str]:
    """Return what uploads bytes and returns their name."""

    def put(content: bytes) -> str:
        name = "sha256:" + hashlib.sha256(content).hexdigest()
        assert client.put(f"/v1/blobs/{name}", content=content).status_code in {200, 201}
        return name

    return put


@pytest.fixture
def finished(service: Service) -> Callable[..., Job]:
    """Return what makes a job that succeeded, with tables of so many layers."""

    def make(*, layers: int = 3, formats: tuple[str, ...] = FORMATS) -> Job:
        job = service.store.add({})
        folder = service.settings.data.result(job.id)
        save_tables(folder, layers=layers, formats=formats)
        save_plan(Plan(assignment={"encoder.0": "w8"}), folder / "plan.json")
        for name in ("frontier.json", "verification.json"):
            write_atomically(folder / name, json.dumps([]).encode())
        write_atomically(folder / "report.html", b"<!doctype html><title>x</title>")
        service.store.start(job.id)
        service.store.finish(job.id, state=JobState.SUCCEEDED)
        return service.store.get(job.id)

    return make
