"""What others make of the same model on the same data: NNCF's 8 bits, OpenVINO's bfloat16.

Each rival runs under both precisions that OpenVINO may be told to keep plain numbers in, since
what it defaults to on this processor is not always what serves it best.
"""

import importlib
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from os import devnull
from pathlib import Path
from typing import Any, Final, final

import onnx
import torch
from numpy import ndarray
from torch import Tensor

from benchmarks.cost.subjects import Forward, Piece, Subject
from mpsearch.core.hardware import Workload
from mpsearch.cost.whole_plans import example_inputs
from mpsearch.runtimes.openvino_executable import OpenVinoExecutable

HINTS: Final = ("f32", "bf16")
PRESETS: Final = ("MIXED", "PERFORMANCE")
_CALIBRATING: Final = 300  # samples, NNCF's default


@final
@dataclass(frozen=True, kw_only=True)
class Rival:
    """A network of OpenVINO as somebody else made it, under a precision of its plain numbers."""

    name: str
    base: onnx.ModelProto
    network: Any
    hint: str

    def timeable(self, *, shapes: Mapping[str, tuple[int, ...]]) -> OpenVinoExecutable:
        """Return it compiled for the shapes of a workload, its inputs bound."""
        network = self.network.clone()
        network.reshape({name: list(shape) for name, shape in shapes.items()})
        executable = self._compiled(network)
        workload = Workload(name="deployment", shapes=dict(shapes))
        executable.run(example_inputs(self.base, workload))
        return executable

    def forward(self) -> Forward:
        """Return a forward pass for inputs of any shape."""
        return _forward(self._compiled(self.network.clone()))

    def _compiled(self, network: Any) -> OpenVinoExecutable:  # noqa: ANN401 - openvino ships no types
        settings = {"NUM_STREAMS": "1", "INFERENCE_NUM_THREADS": "1"}
        settings |= {"INFERENCE_PRECISION_HINT": self.hint} if self.hint else {}
        core = importlib.import_module("openvino").Core()
        return _executable(core.compile_model(network, "CPU", settings), base=self.base)


def plain(base: onnx.ModelProto, *, hint: str) -> Rival:
    """Return the model as it is: the full-precision reference, or OpenVINO's bfloat16."""
    return Rival(name=f"OpenVINO {hint}", base=base, network=network_of(base), hint=hint)


def nncf_int8(base: onnx.ModelProto, subject: Subject) -> list[Rival]:
    """Return NNCF's static 8-bit quantisation in both presets, each under both precisions."""
    nncf = _nncf()
    rivals = []
    for preset in PRESETS:
        with quiet():
            network = nncf.quantize(
                network_of(base),
                calibration_of(subject),
                preset=getattr(nncf.QuantizationPreset, preset),
                model_type=_model_type(subject),
                subset_size=_CALIBRATING,
            )
        rivals += [
            Rival(name=f"NNCF int8 {preset}, {hint}", base=base, network=network, hint=hint)
            for hint in HINTS
        ]
    return rivals


def nncf_within(base: onnx.ModelProto, subject: Subject, *, drop: float) -> list[Rival]:
    """Return what NNCF's accuracy control settles on for a drop, first as OpenVINO defaults to."""
    nncf = _nncf()

    def validated(compiled: Any, pieces: Iterable[Piece]) -> tuple[float, list[float]]:  # noqa: ANN401 - openvino ships no types
        forward, chosen = _forward(_executable(compiled, base=base)), list(pieces)
        return subject.score(forward, chosen), [subject.score(forward, [each]) for each in chosen]

    with quiet():
        network = nncf.quantize_with_accuracy_control(
            network_of(base),
            calibration_dataset=calibration_of(subject),
            validation_dataset=nncf.Dataset(subject.parts["validation"]),
            validation_fn=validated,
            max_drop=drop,
            drop_type=nncf.DropType.ABSOLUTE,
            model_type=_model_type(subject),
            subset_size=_CALIBRATING,
        )
    return [
        Rival(
            name=f"NNCF accuracy control, {hint or 'default'}",
            base=base,
            network=network,
            hint=hint,
        )
        for hint in ("", "f32")
    ]


def network_of(base: onnx.ModelProto) -> Any:  # noqa: ANN401 - openvino ships no types
    """Return the model as OpenVINO reads it."""
    return importlib.import_module("openvino").Core().read_model(base.SerializeToString())


def calibration_of(subject: Subject) -> Any:  # noqa: ANN401 - nncf is optional
    """Return the calibration data sample by sample, without padding."""
    return _nncf().Dataset([row for batch in subject.calibration for row in unpadded(batch)])


def unpadded(batch: Mapping[str, Tensor]) -> Iterator[dict[str, ndarray]]:
    """Yield each sample of a batch by itself, as long as it is."""
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    for place in range(len(next(iter(inputs.values())))):
        rows = {name: value[place : place + 1] for name, value in inputs.items()}
        mask = rows.get("attention_mask")
        if mask is not None:
            rows = {name: value[:, : int(mask.sum())] for name, value in rows.items()}
        yield {name: value.contiguous().numpy() for name, value in rows.items()}


def _model_type(subject: Subject) -> Any:  # noqa: ANN401 - nncf is optional
    return _nncf().ModelType.TRANSFORMER if subject.task == "embedding" else None


def _executable(compiled: Any, *, base: onnx.ModelProto) -> OpenVinoExecutable:  # noqa: ANN401 - openvino ships no types
    return OpenVinoExecutable(model=base, compiled=compiled, profiled=False)


def _forward(executable: OpenVinoExecutable) -> Forward:
    def run(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        found = executable.run({name: batch[name].numpy() for name in executable.input_names})
        return {name: torch.from_numpy(value) for name, value in found.items()}

    return run


def _nncf() -> Any:  # noqa: ANN401 - nncf is optional
    return importlib.import_module("nncf")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the rivals' progress off the lines that a benchmark prints."""
    logging.getLogger("nncf").setLevel(logging.ERROR)
    with Path(devnull).open("w", encoding="utf-8") as sink, redirect_stdout(sink):
        yield
