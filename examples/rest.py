"""Search a plan over HTTP, then run it: `rest.py URL MODEL_FOLDER SAMPLES OUTPUT_FOLDER`."""

import hashlib
import sys
import time
from pathlib import Path

import httpx2
import numpy as np

import mpsearch

model, samples, output = map(Path, sys.argv[2:5])
client = httpx2.Client(base_url=sys.argv[1], timeout=600)


def uploaded(path: Path) -> str:
    """Upload a file and return its name."""
    name = "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
    client.put(f"/v1/blobs/{name}", content=path.read_bytes()).raise_for_status()
    return name


parts = [path for path in model.rglob("*") if path.suffix in {".json", ".safetensors"}]
request = {
    "model": {"files": {path.relative_to(model).as_posix(): uploaded(path) for path in parts}},
    "calibration": {"blob": uploaded(samples), "format": samples.suffix[1:]},
    "budgets": {"weight_bytes": "40%"},
}
job = client.post("/v1/jobs", json=request).raise_for_status().json()
while not (job := client.get(f"/v1/{job['name']}").json())["done"]:
    print(job["metadata"].get("phase", "waiting"), job["metadata"].get("percent", 0), "%")
    time.sleep(1)
if "error" in job:
    sys.exit(job["error"]["detail"])
output.mkdir(parents=True, exist_ok=True)
for name, file in {"plan": "plan.json", "model": "model.onnx", "report": "report.html"}.items():
    (output / file).write_bytes(client.get(job["response"][name]).content)
run = mpsearch.load(output / "model.onnx")
print(run({name: np.ones((1, 8), dtype=np.int64) for name in run.input_names}))
