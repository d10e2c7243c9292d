"""What `a8` on the products of attention gains and loses: MiniLM-L6 in OpenVINO.

`python -m benchmarks.models.products` prints one JSON line per length and base. Every linear
layer is in w8a8, and the products in the base or in a8, in turns. Milliseconds are of the
processor (`time.process_time`), so that other programs on it count little.
"""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
import onnx
import torch
from numpy import ndarray
from tokenizers import Tokenizer

from benchmarks.path.minilm import loaded
from mpsearch.core.graph import Op
from mpsearch.core.hardware import Workload
from mpsearch.core.plan import ActivationQuantizer, Plan
from mpsearch.execution import observe_ranges
from mpsearch.export import export_plan
from mpsearch.runtimes import RUNTIMES, AbstractExecutable
from mpsearch.tasks import read_data
from mpsearch.tasks.text import text_parts
from mpsearch.tracing import LoadedModel, TracedModel, base_onnx, trace_model

_LENGTHS: Final = (128, 512)
_CALIBRATION: Final = 8  # texts
_TEST: Final = 8
_TURNS: Final = 20
_RUNTIME: Final = RUNTIMES["openvino"]


def main() -> None:
    """Print what was measured."""
    torch.set_num_threads(1)
    model = loaded()
    parts = text_parts()
    for length in _LENGTHS:
        known = _texts(model, parts.calibration, length=length, count=_CALIBRATION)
        traced = trace_model(model.module, known, root=model.root, has_products=True)
        with TemporaryDirectory() as folder:
            data = read_data(
                [known], input_names=traced.input_names, batch_size=4, folder=Path(folder)
            )
            quantizers = observe_ranges(traced, data)
        file = base_onnx(traced)
        asked = _texts(model, parts.test, length=length, count=_TEST)
        texts = [
            {name: value[place : place + 1].numpy() for name, value in asked.items()}
            for place in range(_TEST)
        ]
        for base in _RUNTIME.bases:
            _print(traced, file, base=base, quantizers=quantizers, texts=texts)


def _print(
    traced: TracedModel,
    file: onnx.ModelProto,
    *,
    base: str,
    quantizers: Mapping[str, ActivationQuantizer],
    texts: Sequence[Mapping[str, ndarray]],
) -> None:
    """Time both plans in turns, and compare their outputs with those of full precision."""
    plain = _built(traced, file, base="fp32", formats=("fp32", "fp32"), like=texts[0])
    reference = _outputs(plain, texts)
    plans = {
        name: _built(
            traced, file, base=base, formats=("w8a8", name), like=texts[0], quantizers=quantizers
        )
        for name in (base, "a8")
    }
    found = {name: _outputs(each, texts) for name, each in plans.items()}
    seconds: dict[str, list[float]] = {name: [] for name in plans}
    for _ in range(_TURNS):
        for name, each in plans.items():
            start = time.process_time()
            each.infer()
            seconds[name].append(time.process_time() - start)
    whole = {name: round(1e3 * float(np.median(each)), 2) for name, each in seconds.items()}
    products = {name: round(1e3 * _of_products(each), 2) for name, each in plans.items()}
    errors = {
        name: float(f"{np.square(each - reference).sum(axis=1).mean():.3g}")
        for name, each in found.items()
    }
    line = {"tokens": texts[0][traced.input_names[0]].shape[1], "base": base}
    told = line | {"whole_ms": whole, "products_ms": products, "squared_error": errors}
    print(json.dumps(told), flush=True)


def _built(
    traced: TracedModel,
    file: onnx.ModelProto,
    *,
    base: str,
    formats: tuple[str, str],
    like: Mapping[str, ndarray],
    quantizers: Mapping[str, ActivationQuantizer] | None = None,
) -> AbstractExecutable:
    """Build linear layers and products in two formats, all else in the base."""
    chosen = {Op.LINEAR: formats[0], Op.PRODUCT: formats[1]}
    plan = Plan(
        assignment={each.name: chosen.get(each.op, base) for each in traced.graph.layers},
        base=base,
        settings=_RUNTIME.settings(base),
        quantizers=quantizers or {},
    )
    workload = Workload(name="texts", shapes={name: value.shape for name, value in like.items()})
    built = _RUNTIME.build(
        export_plan(file, plan), settings=plan.settings, workload=workload, profile=True
    )
    built.run(like)
    built.assert_kernels(plan)
    return built


def _outputs(built: AbstractExecutable, texts: Sequence[Mapping[str, ndarray]]) -> ndarray:
    return np.concatenate([next(iter(built.run(each).values())) for each in texts])


def _of_products(built: AbstractExecutable) -> float:
    return sum(
        node.seconds
        for node in built.node_times()
        if any("@matmul" in name for name in node.layers)
    )


def _texts(
    model: LoadedModel, sentences: Sequence[str], *, length: int, count: int
) -> dict[str, torch.Tensor]:
    """Return texts of as many tokens, of sentences put together."""
    tokenizer = Tokenizer.from_file(str(model.tokenizer_file))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    start, end = (tokenizer.token_to_id(name) for name in ("[CLS]", "[SEP]"))
    ids = [i for each in sentences for i in tokenizer.encode(each, add_special_tokens=False).ids]
    inside = length - 2
    rows = [[start, *ids[at * inside : (at + 1) * inside], end] for at in range(count)]
    tokens = torch.tensor(rows)
    filled = {"attention_mask": torch.ones_like(tokens), "token_type_ids": torch.zeros_like(tokens)}
    return {name: filled.get(name, tokens) for name in model.input_names}


if __name__ == "__main__":
    main()
