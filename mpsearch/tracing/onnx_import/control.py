"""Branches and loops whose way does not depend on the data, written out node by node."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import torch

from mpsearch.tracing.onnx_import.call import NodeCall
from mpsearch.tracing.onnx_import.graph import OnnxGraph
from mpsearch.tracing.onnx_import.values import Known, Value, as_tensor, known, known_constant

Values: TypeAlias = dict[str, Value | None]
# Runs a graph, whose values by name grow.
Run: TypeAlias = Callable[[OnnxGraph, Values], None]
_MOST_STEPS: Final = 1000  # more would make a graph that nobody can search

CONTROL: Final = frozenset({"If", "Loop", "Scan"})


def run_control(
    call: NodeCall, values: Mapping[str, Value | None], *, run: Run
) -> list[Value | None]:
    """Run an If, Loop or Scan.

    Raises:
        ModelError: Its way depends on the data, or it takes more than 1,000 steps.
    """
    if call.node.op == "If":
        name = "then_branch" if bool(call.scalar(0)) else "else_branch"
        return _body(call.needed(name, OnnxGraph), [], values=values, run=run)
    body = call.needed("body", OnnxGraph)
    function = _loop if call.node.op == "Loop" else _scan
    return function(call, body, values=values, run=run)


def _body(
    graph: OnnxGraph,
    given: Sequence[Value | None],
    *,
    values: Mapping[str, Value | None],
    run: Run,
) -> list[Value | None]:
    inner: Values = dict(values)
    inner.update({name: known_constant(value) for name, value in graph.constants.items()})
    inner.update(zip(graph.inputs, given, strict=True))
    run(graph, inner)
    return [inner[name] for name in graph.outputs]


def _loop(
    call: NodeCall, body: OnnxGraph, *, values: Mapping[str, Value | None], run: Run
) -> list[Value | None]:
    limit = call.scalar(0) if call.has(0) else None
    going = bool(call.scalar(1)) if call.has(1) else True
    carried = list(call.values[2:])
    collected: list[list[Value | None]] = []
    step = 0
    while going and (limit is None or step < limit):
        if step >= _MOST_STEPS:
            raise call.wrong(f"takes more than {_MOST_STEPS} steps", "fewer")
        given: list[Value | None] = [known(step), known(True, dtype=torch.bool), *carried]
        results = _body(body, given, values=values, run=run)
        going = _is_going(call, results[0])
        carried = results[1 : 1 + len(carried)]
        collected.append(results[1 + len(carried) :])
        step += 1
    return [*carried, *_stacked(call, collected)]


def _is_going(call: NodeCall, condition: Value | None) -> bool:
    if isinstance(condition, Known):
        return bool(condition.array.item())
    if condition is None or torch.compiler.is_exporting():
        raise call.wrong("ends when the data says so", "a number of steps that is constant")
    return bool(condition.item())


def _stacked(call: NodeCall, collected: Sequence[Sequence[Value | None]]) -> list[Value | None]:
    if not collected:
        if call.outputs > len(call.values) - 2:
            raise call.wrong("takes no step", "at least one, to know what it collects")
        return []
    return [
        torch.stack([as_tensor(each) for each in column if each is not None])
        for column in zip(*collected, strict=True)
    ]


def _scan(
    call: NodeCall, body: OnnxGraph, *, values: Mapping[str, Value | None], run: Run
) -> list[Value | None]:
    if call.version < 9:  # noqa: PLR2004 - before, the first input was of lengths
        raise call.wrong(f"is of operator set {call.version}", "9 or newer")
    count = call.needed("num_scan_inputs", int)
    carried = list(call.values[: len(call.values) - count])
    scanned = [call.tensor(place) for place in range(len(carried), len(call.values))]
    axes = call.attribute("scan_input_axes", (0,) * count)
    back = call.attribute("scan_input_directions", (0,) * count)
    steps = scanned[0].shape[axes[0]]
    if not isinstance(steps, int) or steps > _MOST_STEPS:
        raise call.wrong(f"takes {steps} steps", f"a fixed number of at most {_MOST_STEPS}")
    collected: list[list[Value | None]] = []
    for step in range(steps):
        slices: list[Any] = [
            tensor.select(axis, steps - 1 - step if turned else step)
            for tensor, axis, turned in zip(scanned, axes, back, strict=True)
        ]
        results = _body(body, [*carried, *slices], values=values, run=run)
        carried = results[: len(carried)]
        collected.append(results[len(carried) :])
    return [*carried, *_scan_outputs(call, collected)]


def _scan_outputs(
    call: NodeCall, collected: Sequence[Sequence[Value | None]]
) -> list[Value | None]:
    columns = [list(column) for column in zip(*collected, strict=True)]
    axes = call.attribute("scan_output_axes", (0,) * len(columns))
    back = call.attribute("scan_output_directions", (0,) * len(columns))
    found: list[Value | None] = []
    for column, axis, turned in zip(columns, axes, back, strict=True):
        tensors = [
            as_tensor(each) for each in (reversed(column) if turned else column) if each is not None
        ]
        found.append(torch.stack(tensors, dim=axis))
    return found
