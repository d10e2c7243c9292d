"""Files of single layers, and a script that times them on a device that has only a runtime."""

import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Final

import numpy as np
import onnx

from mpsearch.core.files import write_atomically
from mpsearch.core.formats import format_named
from mpsearch.core.graph import Layer, LayerGraph, Op
from mpsearch.core.plan import ActivationQuantizer, Plan
from mpsearch.errors import FormatError, UnsupportedFeatureError
from mpsearch.export import export_plan
from mpsearch.runtimes import AbstractRuntime
from mpsearch.runtimes.one_layer import one_layer_onnx
from mpsearch.runtimes.onnxruntime import ACCURACY_LEVEL, OnnxRuntime
from mpsearch.runtimes.onnxruntime_lowering import lowered

SCRIPT: Final = "time_snippets.py"
MANIFEST: Final = "snippets.json"
TABLE: Final = "table.csv"
_TIMES: Final = ("openvino", "onnxruntime")
_MOST_ROWS: Final = 65536  # of a table; more cost the same, and only make the file larger
# Any range will do: times depend on shapes.
_QUANTIZER: Final = ActivationQuantizer(
    scale=8.0 / 255, zero_point=128, low=-4.0, high=4.0, method="none", samples=1
)


def write_snippets(
    graph: LayerGraph,
    folder: Path,
    *,
    runtime: AbstractRuntime,
    formats: Sequence[str],
    base: str = "fp32",
) -> int:
    """Write a file per layer signature and format, a manifest and the script; return how many.

    The script needs the runtime and NumPy, runs in the folder, and leaves `table.csv`, which
    `read_lut` reads. A pair that no file can hold is listed without one and gets an empty row.

    Raises:
        UnsupportedFeatureError: The script cannot drive the runtime.
        FormatError: A format is unknown.
    """
    if runtime.name not in _TIMES:
        raise UnsupportedFeatureError(
            f"Runtime {runtime.name!r} runs no files. Expected one of {', '.join(_TIMES)}. "
            "Choose the one that the device has."
        )
    columns = (base, *(name for name in formats if not format_named(name).is_floating))
    entries = []
    for index, layer in enumerate({each.signature: each for each in graph.layers}.values()):
        for name in columns:
            model = _snippet(layer, name, runtime=runtime, base=base)
            file = "" if model is None else f"{index:03d}_{name}.onnx"
            if model is not None:
                write_atomically(folder / file, model.SerializeToString())
            entries.append(_entry(layer, name, file=file))
    manifest = {
        "runtime": runtime.name,
        "settings": _session_settings(runtime, base=base),
        "snippets": entries,
    }
    write_atomically(folder / MANIFEST, json.dumps(manifest, indent=1).encode())
    script = resources.files("mpsearch.cost").joinpath("snippet_timer.py").read_bytes()
    write_atomically(folder / SCRIPT, script)
    return sum(1 for entry in entries if entry["file"])


def _snippet(
    layer: Layer, format_name: str, *, runtime: AbstractRuntime, base: str
) -> onnx.ModelProto | None:
    shape = layer.weight_shape
    if layer.op is Op.EMBEDDING:
        shape = (min(shape[0], _MOST_ROWS), *shape[1:])
    weight = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    plan = Plan(
        assignment={layer.name: format_name}, base=base, quantizers={layer.name: _QUANTIZER}
    )
    try:
        model = export_plan(one_layer_onnx(layer, weight, neighbour=False), plan)
    except FormatError:
        return None
    for value in model.graph.input:
        _fix_(value, layer.input_shape)
    if runtime.name == OnnxRuntime.name:
        level = int(runtime.settings(base)[ACCURACY_LEVEL])
        return lowered(model, accuracy_level=level)
    return model


def _fix_(value: onnx.ValueInfoProto, shape: Sequence[int]) -> None:
    for place, size in zip(value.type.tensor_type.shape.dim, shape, strict=True):
        place.dim_value = size


def _entry(layer: Layer, format_name: str, *, file: str) -> dict[str, object]:
    return {
        "signature": layer.signature,
        "format": format_name,
        "file": file,
        "shape": list(layer.input_shape),
        "rows": layer.weight_shape[0] if layer.op is Op.EMBEDDING else 0,
        "calls": layer.calls,
    }


def _session_settings(runtime: AbstractRuntime, *, base: str) -> Mapping[str, str]:
    settings = runtime.settings(base)
    return {name: value for name, value in settings.items() if name != ACCURACY_LEVEL}
