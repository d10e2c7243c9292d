"""How long a profile takes: a chain of layers, no two of one shape."""

import time
from itertools import pairwise
from typing import Final

import torch
from torch import nn

from benchmarks.cost.trial import ANY_RANGE
from mpsearch.core.hardware import Workload
from mpsearch.cost import profile, support_of
from mpsearch.runtimes import RUNTIMES
from mpsearch.search.references import reference_assignments
from mpsearch.tracing import base_onnx, trace_model

_SIGNATURES: Final = 20
_FEWER: Final = 6
_FORMATS: Final = ("fp32", "w8a8", "w8", "w4g128")
_ROWS: Final = 8
_STEP: Final = 128


def profile_seconds(*, small: bool) -> tuple[float, dict[str, object]]:
    """Return the seconds of a profile from nothing, and what was profiled."""
    count = _FEWER if small else _SIGNATURES
    widths = [_STEP * (1 + place) for place in range(count + 1)]
    layers = [
        part for before, after in pairwise(widths) for part in (nn.Linear(before, after), nn.GELU())
    ]
    traced = trace_model(nn.Sequential(*layers).eval(), (torch.zeros(_ROWS, _STEP),))
    base = base_onnx(traced)
    runtime = RUNTIMES["openvino"]
    start = time.monotonic()
    found = support_of(traced.graph, runtime=runtime, formats=_FORMATS, base="fp32", cache=None)
    table = profile(
        base,
        traced.graph,
        runtime=runtime,
        formats=_FORMATS,
        base_precision="fp32",
        workload=Workload(name="rows", shapes={base.graph.input[0].name: (_ROWS, _STEP)}),
        quantizers=dict.fromkeys(traced.graph.names, ANY_RANGE),
        references=reference_assignments(
            traced.graph, base="fp32", formats=_FORMATS, support=found
        ),
        support=found,
    )
    facts: dict[str, object] = {
        "signatures": len({layer.signature for layer in traced.graph.layers}),
        "formats": len(table.formats),
        "plans": len(table.measured),
    }
    return time.monotonic() - start, facts
