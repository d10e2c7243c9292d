"""Searches for kinds of models and data beside the main path, on real input where there is some.

Run by hand: `python -m benchmarks.models.tasks [NAME ...]`, one JSON line for each figure.
"""

import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch

import mpsearch
from benchmarks.models.masked import trained_reader
from benchmarks.zoo.case import Batches
from benchmarks.zoo.denoiser import denoiser, noised
from benchmarks.zoo.minilm import minilm
from benchmarks.zoo.place import ZOO
from benchmarks.zoo.resnet import CifarResNet, cifar_resnet
from mpsearch.execution import quantised
from mpsearch.tasks.denoiser_calls import DenoiserCalls
from mpsearch.tasks.synthetic import SyntheticInputs, distilled, norm_mismatch
from mpsearch.testing.pipelines import save_class_conditional, save_text_conditional
from mpsearch.workflow.search import SearchResult

_FORMATS: Final = ("w2", "w3", "w4", "w8")
_ALIKE: Final = 4.5  # of 5: sentences that people found to mean the same
_BITS: Final = 3.5  # on average over all weights that have a format


def main(names: Sequence[str]) -> None:
    """Print the figures asked for, or all."""
    torch.set_num_threads(1)
    for name in names or _CASES:
        print(json.dumps({"case": name, **_CASES[name]()}), flush=True)


def _searched(model: Any, data: Any, **more: Any) -> SearchResult:  # noqa: ANN401 - as search takes them
    with tempfile.TemporaryDirectory() as cache:
        return mpsearch.search(
            model,
            data,
            **{"budgets": {"weight_bits": _BITS}, "formats": _FORMATS, **more},
            runtime="simulation",
            cache=cache,
            effort=1.0,
        )


def _figures(result: SearchResult) -> dict[str, float]:
    """Return what was measured on the data that decided, or on test data."""
    return {
        row.quantity: round(float(row.measured), 4)
        for row in result.verification
        if row.measured is not None and "latency" not in row.quantity
    }


def _retrieval() -> dict[str, Any]:
    """MiniLM over pairs of sentences that people called alike: each asks for the other."""
    pairs = [row for row in json.loads((ZOO / "stsb" / "dev.json").read_text()) if row[2] >= _ALIKE]
    parts = (pairs[:16], pairs[16:80], pairs[80:144])
    told = [
        [{"text": text, "label": at} for at, row in enumerate(part) for text in row[:2]]
        for part in parts
    ]
    with tempfile.TemporaryDirectory() as folder:
        model = minilm(Path(folder)).model
        result = _searched(
            model,
            told[0],
            validation=told[1],
            test=told[2],
            task="retrieval",
            formats=("w3", "w4"),
        )
    return _figures(result)


def _denoiser() -> dict[str, Any]:
    model = denoiser()
    result = _searched(
        model,
        noised(model, rows=range(64), seed=0),
        validation=noised(model, rows=range(64, 128), seed=1),
        test=noised(model, rows=range(128, 256), seed=2),
        task="denoiser",
    )
    return _figures(result)


def _masked() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        parts = trained_reader(Path(folder))
        result = _searched(
            folder, parts["calibration"], validation=parts["validation"], test=parts["test"]
        )
    return _figures(result)


def _text_to_picture() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        save_text_conditional(Path(folder))
        result = _searched(
            Path(folder) / "pipeline",
            DenoiserCalls(prompts=("a cat", "a dog", "one house", "two"), steps=5),
        )
    return _figures(result)


def _class_to_picture() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        save_class_conditional(Path(folder))
        result = _searched(folder, DenoiserCalls(pictures=4, steps=5))
    return _figures(result)


def _synthetic() -> dict[str, Any]:
    """Compare plans of one network found on synthetic and on real pictures, on test pictures."""
    case = cifar_resnet("cifar10_resnet20")
    model = case.model
    assert isinstance(model, CifarResNet)
    noise = {"image": torch.randn(32, 3, 32, 32, generator=torch.Generator().manual_seed(0))}
    made = SyntheticInputs(shapes={"image": (3, 32, 32)}, samples=64)
    parts = case.parts(0)
    tests = case.test()[:16]
    before, after = norm_mismatch(model, noise), norm_mismatch(model, distilled(model, noise))
    found: dict[str, Any] = {"mismatch_of_noise_over_synthetic": round(float(before / after), 1)}
    real = [{"image": parts.calibration[0]["image"][:64]}]
    sources = {"synthetic": made, "real": real, "noise": [noise, {"image": -noise["image"]}]}
    for name, source in sources.items():
        result = _searched(model, source, task="classification")
        found[f"accuracy_{name}"] = _accuracy(model, result=result, tests=tests)
        found[f"bytes_{name}"] = result.plan.forecast["weight_bytes"]
    found["accuracy_fp32"] = _accuracy(model, result=None, tests=tests)
    return found


def _accuracy(model: CifarResNet, *, result: SearchResult | None, tests: Batches) -> float:
    """Return the share of test pictures that the plan's model, or the full one, gets right."""
    with torch.no_grad():
        if result is None:
            return _right(model, tests)
        example = {"image": tests[0]["image"][:2]}
        with quantised(model, result.plan, example=example):
            return _right(model, tests)


def _right(model: CifarResNet, tests: Batches) -> float:
    hits = [model(batch["image"]).argmax(dim=1) == batch["labels"] for batch in tests]
    return round(float(torch.cat(hits).double().mean()), 4)


_CASES: Final[Mapping[str, Callable[[], dict[str, Any]]]] = {
    "denoiser": _denoiser,
    "class to picture": _class_to_picture,
    "text to picture": _text_to_picture,
    "synthetic": _synthetic,
    "retrieval": _retrieval,
    "masked": _masked,
}

if __name__ == "__main__":
    main(sys.argv[1:])
