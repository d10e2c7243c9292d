"""A recorded program does what the function did, for other numbers of the same shapes."""

from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from mpsearch.runtimes.torch_program import record

Function = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]
_WEIGHT = torch.arange(12.0).reshape(3, 4) / 7


def _in_place(inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    return {"y": inputs["x"].div(3).round_().add_(2).clamp_(0, 3).to(torch.uint8)}


def _several(inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    low, high = inputs["x"].chunk(2)
    value, place = torch.cat([high, low, high]).max(dim=1)
    return {"value": value, "place": place, "normed": functional.layer_norm(low, [4])}


def _constants(inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    scale = torch.exp(_WEIGHT).sum() * torch.arange(4.0)
    return {"y": functional.linear(inputs["x"] * scale, _WEIGHT), "scale": scale}


def _unread(inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    _ = inputs["x"].exp()
    return {"y": inputs["z"] + 1, "same": inputs["x"]}


@pytest.mark.parametrize("function", [_in_place, _several, _constants, _unread])
def test_a_program_does_what_the_function_does(function: Function) -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = (
        {name: torch.randn(6, 4, generator=generator) * 5 for name in ("x", "z")} for _ in range(2)
    )
    program = record(function, first)
    for inputs in (first, second):
        kept = {name: value.clone() for name, value in inputs.items()}
        found = dict(zip(program.outputs, program(*inputs.values()), strict=True))
        for name, expected in function(kept).items():
            torch.testing.assert_close(found[name], expected, rtol=0, atol=0)
        for name, value in kept.items():
            torch.testing.assert_close(inputs[name], value, rtol=0, atol=0)


def test_what_follows_from_constants_is_computed_once() -> None:
    program = record(_constants, {"x": torch.ones(6, 4)})
    operators = [step.operator for step in _run_steps(program)]
    assert not any("exp" in each or "sum" in each or "arange" in each for each in operators)


def test_what_nothing_reads_is_left_out() -> None:
    program = record(_unread, {"x": torch.ones(6, 4), "z": torch.ones(6, 4)})
    assert [step.operator for step in _run_steps(program, count=2)] == ["aten.add.Tensor"]


def test_steps_give_what_the_whole_gives_and_hold_nothing_longer_than_needed() -> None:
    def function(inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        value = inputs["x"]
        for _ in range(5):
            value = torch.tanh(value) * 2
        return {"y": value}

    inputs = torch.linspace(-1, 1, 24).reshape(6, 4)
    program = record(function, {"x": inputs})
    most, last = 0, None
    for step in program.steps([inputs]):
        step.run()
        most, last = max(most, len(step.values)), step.values[step.node]
    torch.testing.assert_close(last, program(inputs)[0], rtol=0, atol=0)
    assert most == 2  # what is read and what is made


def test_the_importer_is_told_that_numbers_must_not_decide() -> None:
    seen = []

    def function(inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        seen.append(torch.compiler.is_exporting())
        return {"y": inputs["x"] + 1}

    record(function, {"x": torch.ones(2)})
    assert seen == [True]
    assert not torch.compiler.is_exporting()


def _run_steps(program, count: int = 1):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202 - steps of a program
    for step in program.steps([torch.ones(6, 4)] * count):
        step.run()
        yield step
