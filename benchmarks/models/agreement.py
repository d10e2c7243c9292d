"""Do exported models give the numbers of ONNX Runtime, and the gradients of the module?"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from benchmarks.bar import Bar, judged
from benchmarks.models.exported import EXAMPLES, Example, export, quiet
from benchmarks.models.targets import TARGETS
from mpsearch.tracing import OnnxModel, TracedModel, load_onnx, trace_onnx

# Without the exporter on torch.export, which takes seconds a model.
_SMALL: Final = ("BERT", "GPT-2", "ViT", "Whisper encoder")
_FLOOR: Final = 1e-3
_VALUES: Final = "largest difference of an exported model to ONNX Runtime"
_GRADIENTS: Final = "largest difference of a gradient to the module's"


def agreement(*, small: bool) -> Iterator[Bar]:
    """Export each model, read it, and compare."""
    torch.manual_seed(0)
    values: dict[str, float] = {}
    gradients: dict[str, float] = {}
    left_out: dict[str, str] = {}
    for name in _SMALL if small else EXAMPLES:
        for new in (False,) if small else (False, True):
            title = f"{name}, {'torch.export' if new else 'tracing'}"
            try:
                example = EXAMPLES[name]()
                path = _exported(example, new=new)
            except Exception as error:  # noqa: BLE001 - a model that torch itself does not export
                left_out[title] = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
                continue
            with path:
                values[title], gradients[title] = _compared(example, Path(path.name) / "m.onnx")
    for bar, found in ((_VALUES, values), (_GRADIENTS, gradients)):
        yield judged(
            bar,
            list(found.values()),
            target=TARGETS[bar],
            statistic="max",
            extra={"models": found, "not_exported": left_out},
        )


def _exported(example: Example, *, new: bool) -> "tempfile.TemporaryDirectory[str]":
    folder = tempfile.TemporaryDirectory()
    export(example, Path(folder.name) / "m.onnx", new=new)
    return folder


def _compared(example: Example, path: Path) -> tuple[float, float]:
    """Return the largest difference of outputs, at two batches, and of gradients."""
    with quiet():
        loaded = load_onnx(path)
        names = loaded.input_names
        inputs = {name: example.inputs[name] for name in names}
        traced = trace_onnx(loaded, inputs)
    more = {name: torch.cat([value, value[:1]]) for name, value in inputs.items()}
    differences = [_difference(path, traced, batch=batch) for batch in (inputs, more)]
    return max(differences), _gradient_difference(example, loaded, traced=traced)


def _difference(path: Path, traced: TracedModel, *, batch: Mapping[str, Tensor]) -> float:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (expected, *_) = session.run(None, {name: value.numpy() for name, value in batch.items()})
    with torch.no_grad():
        found = next(iter(traced.module(dict(batch)).values()))
    return float(np.abs(found.numpy() - expected).max())


def _gradient_difference(example: Example, loaded: OnnxModel, *, traced: TracedModel) -> float:
    """Compare by parameters that keep their name; relative to the largest gradient of each."""
    own = dict(example.module.named_parameters())
    shared = {name: path for name, path in loaded.module.paths.items() if name in own}
    assert shared, "the exporter renamed every parameter"
    inputs = {name: example.inputs[name] for name in loaded.input_names}
    output = example.module(*example.inputs.values())
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(1))
    wanted = _gradients(output, weights, parameters=[own[name] for name in shared])
    result = next(iter(traced.module(inputs).values()))
    held = [_parameter(traced.module, path) for path in shared.values()]
    found = _gradients(result, weights, parameters=held)
    # Some are nothing but rounding (of a key's bias): a thousandth of the largest is the floor.
    floor = max(float(each.abs().max()) for each in wanted if each is not None) * _FLOOR
    return max(_relative(a, b, floor=floor) for a, b in zip(found, wanted, strict=True))


def _gradients(
    output: Tensor, weights: Tensor, *, parameters: Sequence[Tensor]
) -> list[Tensor | None]:
    return list(torch.autograd.grad((output * weights).sum(), list(parameters), allow_unused=True))


def _parameter(module: Any, path: str) -> Tensor:  # noqa: ANN401 - any object with attributes
    found = module
    for part in path.split("."):
        found = getattr(found, part)
    assert isinstance(found, Tensor)
    return found


def _relative(found: Tensor | None, wanted: Tensor | None, *, floor: float) -> float:
    if found is None or wanted is None:
        nothing = all(each is None or not each.any() for each in (found, wanted))
        return 0.0 if nothing else float("inf")
    scale = max(float(wanted.abs().max()), floor)
    return float((found - wanted).abs().max()) / scale
