"""Time single-layer ONNX files on this device; needs NumPy and the runtime, nothing else.

Run it in the folder of the files: `python time_snippets.py [--threads 1] [--seconds 1]`. It
writes `table.csv`. The files take turns, so that a slow moment of the device meets them all.
"""

import argparse
import csv
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

_ROUNDS = 7
_FEWEST = 3
_DROPPED_SHARE = 1 / 3  # of each slot, in which weights are cold


def main() -> None:
    """Time every file of the manifest and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1.0, help="for each file")
    parser.add_argument("--device", default=f"{platform.processor() or platform.machine()}")
    options = parser.parse_args()
    manifest = json.loads((options.folder / "snippets.json").read_text())
    entries = manifest["snippets"]
    runs = [
        _opened(options.folder, entry, manifest=manifest, threads=options.threads)
        for entry in entries
    ]
    times: list[list[float]] = [[] for _ in runs]
    slot = options.seconds / _ROUNDS
    for _ in range(_ROUNDS):
        for place in np.random.default_rng().permutation(len(runs)):
            run = runs[place]
            if run is not None:
                times[place].append(_slot(run, slot))
    with (options.folder / "table.csv").open("w", newline="") as file:
        file.write(f"# device: {options.device}\n")
        file.write(f"# source: snippets in {manifest['runtime']}, {options.threads} threads\n")
        file.write("# estimate: no\n")
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["signature", "format", "latency_ns"])
        for entry, found in zip(entries, times, strict=True):
            amount = round(float(np.median(found)) * 1e9 * entry["calls"]) if found else ""
            table.writerow([entry["signature"], entry["format"], amount])


def _slot(run: Callable[[], object], seconds: float) -> float:
    found: list[float] = []
    start = time.perf_counter()
    while time.perf_counter() - start < seconds or len(found) < _FEWEST:
        before = time.perf_counter()
        run()
        found.append(time.perf_counter() - before)
    return float(np.median(found[int(len(found) * _DROPPED_SHARE) :]))


def _opened(
    folder: Path, entry: dict[str, Any], *, manifest: dict[str, Any], threads: int
) -> Callable[[], object] | None:
    if not entry["file"]:
        return None
    generator = np.random.default_rng(0)
    rows = entry["rows"]
    shape = tuple(entry["shape"])
    inputs = (
        generator.integers(0, min(rows, 1000), shape)
        if rows
        else generator.standard_normal(shape, dtype=np.float32)
    )
    opened = _OPENED[manifest["runtime"]]
    try:
        return opened(
            str(folder / entry["file"]), inputs, settings=manifest["settings"], threads=threads
        )
    except Exception as error:  # noqa: BLE001 - whatever a runtime raises at what it cannot run
        print(f"No kernel for {entry['signature']} in {entry['format']}: {error}")  # noqa: T201 - a script tells on its terminal
        return None


def _openvino(
    path: str, inputs: np.ndarray, *, settings: dict[str, str], threads: int
) -> Callable[[], object]:
    import openvino

    chosen = settings | {"INFERENCE_NUM_THREADS": str(threads)}
    request = openvino.Core().compile_model(path, "CPU", chosen).create_infer_request()
    request.set_input_tensor(openvino.Tensor(np.ascontiguousarray(inputs)))
    request.infer()
    infer: Callable[[], object] = request.infer
    return infer


def _onnxruntime(
    path: str, inputs: np.ndarray, *, settings: dict[str, str], threads: int
) -> Callable[[], object]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    for name, value in settings.items():
        options.add_session_config_entry(name, value)
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    binding.bind_cpu_input("input", inputs)
    binding.bind_output("output")
    session.run_with_iobinding(binding)
    return lambda: session.run_with_iobinding(binding)


_OPENED = {"openvino": _openvino, "onnxruntime": _onnxruntime}

if __name__ == "__main__":
    main()
