"""The path by HTTP, on a real server with a real worker and a small real model."""

import hashlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import numpy as np
import pytest

import mpsearch
from benchmarks.rest.server import Server, SmallModel
from benchmarks.rest.small_network import SmallNetwork
from mpsearch.core.files import load_plan
from mpsearch.testing.onnx_files import evaluated, small_network

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> SmallModel:
    return SmallModel(folder=tmp_path_factory.mktemp("root"), blocks=1).write()


@pytest.fixture(scope="module")
def network(model: SmallModel) -> SmallNetwork:
    return SmallNetwork(folder=model.folder).write()


@pytest.fixture(scope="module")
def server(model: SmallModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("data"), root=model.folder) as running:
        yield running


def test_the_example_brings_a_plan_and_a_model_that_runs(
    server: Server, model: SmallModel, tmp_path: Path
) -> None:
    folder = model.folder
    arguments = [server.url, f"{folder}/model", f"{folder}/samples.npz", str(tmp_path / "new")]
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "rest.py", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "array(" in done.stdout
    assert load_plan(tmp_path / "new" / "plan.json").runtime == "openvino"
    assert "<title>" in (tmp_path / "new" / "report.html").read_text()


def test_the_example_stays_within_forty_lines() -> None:
    assert len((ROOT / "examples" / "rest.py").read_text().splitlines()) <= 40


def test_the_calls_of_the_readme_bring_a_plan(server: Server) -> None:
    shown = re.search(
        r"^```sh\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL
    )
    assert shown is not None
    calls = shown[1].replace("localhost:8765", server.url.removeprefix("http://"))
    post, follow, fetch = calls.splitlines()
    for name, ours in (("models", "r"), ("minilm", "model"), ("train.jsonl", "samples.npz")):
        post = post.replace(f'"{name}"', f'"{ours}"')
    job_id = re.search(r"^location: /v1/jobs/(\S+)", said(post), re.MULTILINE | re.IGNORECASE)
    assert job_id is not None
    server.waited_for(
        lambda: json.loads(said(follow.replace("$JOB", job_id[1])))["done"],
        f"the end of job {job_id[1]}",
        seconds=300,
    )
    assert json.loads(said(fetch.replace("$JOB", job_id[1])))["runtime"] == "openvino"


def said(call: str) -> str:
    """Return what a curl command writes to stdout."""
    command = [*shlex.split(call), "--max-time", "60"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=90).stdout


@pytest.mark.parametrize("way", ["under a root", "uploaded"])
def test_an_onnx_file_becomes_a_plan_that_runs(
    server: Server, model: SmallModel, tmp_path: Path, way: str
) -> None:
    network = small_network()
    content = network.SerializeToString()
    (model.folder / "two.onnx").write_bytes(content)
    (given,) = network.graph.input
    shape = [each.dim_value or 24 for each in given.type.tensor_type.shape.dim]
    images = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    np.savez(model.folder / "images.npz", x=images)
    source: dict[str, object] = {"root": "r", "path": "two.onnx"}
    if way == "uploaded":
        name = "sha256:" + hashlib.sha256(content).hexdigest()
        server.client.put(f"/v1/blobs/{name}", content=content).raise_for_status()
        source = {"files": {"two.onnx": name}}
    body = {
        "model": source,
        "calibration": {"root": "r", "path": "images.npz"},
        "budgets": {"weight_bytes": "60%"},
    }
    job_id = server.post(body)
    job = server.ended(job_id)
    assert job["metadata"]["state"] == "succeeded", job
    plan_model = tmp_path / "model.onnx"
    plan_model.write_bytes(server.client.get(f"/v1/jobs/{job_id}/model").content)
    (found,) = mpsearch.load(plan_model)({"x": images[:1]}).values()
    expected = evaluated(network, x=images[:1])
    # Eight bits change a random network a little; another network would change it wholly.
    cosine = (found * expected).sum() / np.linalg.norm(found) / np.linalg.norm(expected)
    assert cosine > 0.95


def test_an_infeasible_budget_ends_with_the_nearest_reachable_values(
    server: Server, network: SmallNetwork
) -> None:
    body = {**network.request(), "budgets": {"weight_bytes": "1%"}}
    job = server.ended(server.post(body))
    assert job["metadata"]["state"] == "failed"
    assert job["error"]["type"].endswith(":infeasible-budget")
    least = job["error"]["smallest"]["weight_bytes"]
    again = server.ended(server.post({**body, "budgets": {"weight_bytes": f"{least:.0f}B"}}))
    assert again["metadata"]["state"] == "succeeded"


def test_a_job_is_solved_again_under_another_budget(server: Server, network: SmallNetwork) -> None:
    job_id = server.post(network.request())
    server.ended(job_id)
    spent = []
    for share in ("25%", "60%"):
        body = {"job": job_id, "budgets": {"weight_bytes": share}}
        answer = httpx2.post(f"{server.url}/v1/plans:solve", json=body, timeout=60)
        spent.append(answer.json()["plan"]["forecast"]["weight_bytes"])
    assert spent[0] < spent[1]


@pytest.mark.parametrize("kind", ["worker", "runner"])
def test_a_job_goes_on_after_a_kill(server: Server, network: SmallNetwork, kind: str) -> None:
    job_id = server.post(network.request())
    server.waited_for(server.runner, f"the runner of job {job_id}")
    os.kill(server.waited_for(getattr(server, kind), f"the {kind}"), signal.SIGKILL)
    assert server.ended(job_id)["metadata"]["state"] == "succeeded"


def test_a_cancelled_job_has_no_runner(server: Server, network: SmallNetwork) -> None:
    job_id = server.post(network.request())
    server.waited_for(server.runner, f"the runner of job {job_id}")
    httpx2.post(f"{server.url}/v1/jobs/{job_id}:cancel", timeout=60).raise_for_status()
    assert server.ended(job_id)["metadata"]["state"] == "cancelled"
    assert server.runner() is None
