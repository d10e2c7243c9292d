"""Uploads in a bucket: another host's worker finds them, and an outage is told."""

import hashlib
import io
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread

import httpx2
import numpy as np
import pytest
from moto.server import ThreadedMotoServer

from benchmarks.rest.server import Server
from benchmarks.waiting import PATIENCE_SECONDS
from mpsearch.testing.onnx_files import small_network


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadedMotoServer]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    promptly(server.start)
    host, port = server.get_host_and_port()
    httpx2.put(f"http://{host}:{port}/uploads").raise_for_status()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setenv("MPS_BLOBS_URL", "s3://uploads/mpsearch")
    yield server
    promptly(server.stop)


def promptly(work: Callable[[], None]) -> None:
    """Let the bucket's server wait for its thread, but not for ever."""
    thread = Thread(target=work, name=str(work), daemon=True)
    thread.start()
    thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive(), f"{thread.name} has not ended after {PATIENCE_SECONDS:.0f} s"


def uploaded(server: Server, content: bytes) -> str:
    name = "sha256:" + hashlib.sha256(content).hexdigest()
    server.client.put(f"/v1/blobs/{name}", content=content).raise_for_status()
    return name


def test_a_job_finds_its_uploads_in_the_bucket(bucket: ThreadedMotoServer, tmp_path: Path) -> None:
    network = small_network()
    (given,) = network.graph.input
    shape = [each.dim_value or 24 for each in given.type.tensor_type.shape.dim]
    samples = io.BytesIO()
    np.savez(samples, x=np.random.default_rng(0).standard_normal(shape).astype(np.float32))
    with Server(tmp_path / "data", root=tmp_path) as server:
        model = uploaded(server, network.SerializeToString())
        data = uploaded(server, samples.getvalue())
        # As if another host had taken them in.
        shutil.rmtree(tmp_path / "data" / "blobs")
        body = {
            "model": {"files": {"net.onnx": model}},
            "calibration": {"blob": data, "format": "npz"},
            "budgets": {"weight_bytes": "60%"},
            "runtime": "simulation",
        }
        job = server.ended(server.post(body))
        assert job["metadata"]["state"] == "succeeded", job

        shutil.rmtree(tmp_path / "data" / "blobs")
        promptly(bucket.stop)
        told = server.client.put(f"/v1/blobs/{model}", content=network.SerializeToString())
        assert (told.status_code, told.headers["retry-after"]) == (503, "5")
        assert "s3://uploads/mpsearch" in told.json()["detail"]
        assert server.client.get("/healthz").status_code == 200
