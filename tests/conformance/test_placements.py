"""Every runtime runs plans of every placement as their simulation says."""

from dataclasses import replace
from functools import cache

import numpy as np
import onnx
import pytest
from torch import Tensor

from mpsearch.core.graph import Op
from mpsearch.core.hardware import Workload
from mpsearch.core.placement import RESIDUAL_ADDS, addend_keys, quantised_additions
from mpsearch.core.plan import ActivationQuantizer, Plan
from mpsearch.execution import quantised, run
from mpsearch.export import export_plan
from mpsearch.runtimes import RUNTIMES, agrees_with_simulation
from mpsearch.testing.networks import Network, forms, residual
from mpsearch.tracing import TracedModel, base_onnx, trace_model

_ON_PROCESSORS = ("onnxruntime", "openvino", "torch")
# Images of unit variance and sums of them, and what comes behind a ReLU.
_RANGE = ActivationQuantizer(
    scale=0.03125, zero_point=96, low=-3.0, high=4.96875, method="minmax", samples=1
)
# So coarse that additions make most of the noise, and a runtime that leaves them out disagrees.
_COARSE = ActivationQuantizer(
    scale=0.25, zero_point=12, low=-3.0, high=60.75, method="minmax", samples=1
)


@cache
def _traced(network: Network) -> tuple[TracedModel, onnx.ModelProto]:
    module, example = network()
    traced = trace_model(module.eval(), example)
    return traced, base_onnx(traced)


def _plan(traced: TracedModel, *, runtime: str, base: str) -> Plan:
    """Return every layer in w8a8, less embeddings and the last, with all additions."""
    engine = RUNTIMES[runtime]
    assignment = dict.fromkeys(traced.graph.names, "w8a8")
    kept = [layer.name for layer in traced.graph.layers if layer.op is Op.EMBEDDING]
    assignment |= dict.fromkeys([*kept, traced.graph.names[-1]], base)
    additions = quantised_additions(assignment, additions=traced.graph.additions)
    assert additions
    addends = {key: _COARSE for name in additions for key in addend_keys(name)}
    return Plan(
        assignment=assignment,
        base=base,
        placement=RESIDUAL_ADDS,
        runtime=runtime,
        settings=engine.settings(base),
        quantizers=dict.fromkeys(traced.graph.names, _RANGE) | addends,
    )


@pytest.mark.parametrize("runtime", _ON_PROCESSORS)
@pytest.mark.parametrize("network", [residual, forms])
def test_quantised_additions_run_as_their_simulation(runtime: str, network: Network) -> None:
    traced, base_file = _traced(network)
    example, engine = traced.example, RUNTIMES[runtime]
    batch = {name: each.repeat_interleave(2, dim=0) for name, each in example.items()}
    plain = run(traced, batch)
    workload = Workload(name="w", shapes={name: tuple(e.shape) for name, e in batch.items()})
    for base in engine.bases:
        plan = _plan(traced, runtime=runtime, base=base)
        built = engine.build(
            export_plan(base_file, plan), settings=plan.settings, workload=workload
        )
        built.assert_kernels(plan)
        found = next(iter(built.run({n: e.numpy() for n, e in batch.items()}).values()))
        with quantised(traced, plan) as simulated:
            expected = run(simulated, batch)
        check = agrees_with_simulation(
            {"output": found}, simulated=_numbers(expected), plain=_numbers(plain)
        )
        assert check.error < max(0.5 * check.noise, 0.02), (base, check)


def test_the_comparison_tells_additions_that_are_left_out() -> None:
    for network in (residual, forms):
        traced, _ = _traced(network)
        example = traced.example
        plan = _plan(traced, runtime="openvino", base="fp32")
        plain = run(traced, example)
        with quantised(traced, plan) as simulated:
            expected = run(simulated, example)
        with quantised(traced, replace(plan, placement="layer_inputs")) as simulated:
            found = run(simulated, example)
        check = agrees_with_simulation(
            _numbers(found), simulated=_numbers(expected), plain=_numbers(plain)
        )
        assert check.error > 0.5 * check.noise, check


def _numbers(output: Tensor) -> dict[str, np.ndarray]:
    return {"output": output.numpy()}
