"""Structures of inputs and outputs become tensors by name, and come back as they were."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mpsearch.errors import DataError, ModelError
from mpsearch.execution import run
from mpsearch.tracing import TracedModel, trace_model, trace_program
from mpsearch.tracing.call import call_of, takes_structure


@dataclass
class Pair:
    """Two inputs, or two outputs."""

    left: Tensor
    right: Tensor


class OfPair(nn.Module):
    """A dataclass in, a dataclass out, of one linear layer called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, pair: Pair) -> Pair:
        """Run the layer on both."""
        return Pair(left=self.layer(pair.left), right=self.layer(pair.right).relu())


class OfTuple(OfPair):
    """A tuple and a tensor in, nested dicts and tuples out."""

    def forward(self, pair: tuple[Tensor, Tensor], scale: Tensor) -> Any:  # type: ignore[override]  # noqa: ANN401 - another call of the same layer
        """Run the layer on both."""
        first, second = (self.layer(each) * scale for each in pair)
        return {"sums": (first + second, {"first": first})}


def _pair() -> Pair:
    torch.manual_seed(0)
    return Pair(left=torch.randn(5, 4), right=torch.randn(5, 4))


def _larger(traced: TracedModel) -> dict[str, Tensor]:
    return {name: torch.cat([each, each]) for name, each in traced.example.items()}


@pytest.mark.parametrize("form", ["by position", "by name", "by field"])
def test_fields_of_a_dataclass_are_inputs_and_outputs_of_their_own(form: str) -> None:
    model, pair = OfPair(), _pair()
    example: Any = {
        "by position": [pair],
        "by name": {"pair": pair},
        "by field": {"left": pair.left, "right": pair.right},
    }[form]
    traced = trace_model(model, example)
    assert traced.input_names == ("left", "right")
    assert traced.output_names == ("left", "right")
    batch = _larger(traced)  # the batch stays free
    found = run(traced, batch)
    expected = model(Pair(**batch))
    assert isinstance(found, Pair)
    assert torch.equal(found.left, expected.left)
    assert torch.equal(found.right, expected.right)
    assert [layer.calls for layer in traced.graph.layers] == [2]


def test_tensors_in_a_tuple_are_called_by_their_place() -> None:
    model, pair = OfTuple(), _pair()
    traced = trace_model(model, [(pair.left, pair.right), torch.ones(5, 1)])
    assert traced.input_names == ("pair_0", "pair_1", "scale")
    assert traced.output_names == ("sums_0", "sums_1_first")
    batch = _larger(traced)
    found = run(traced, batch)
    expected = model((batch["pair_0"], batch["pair_1"]), batch["scale"])
    assert torch.equal(found["sums"][0], expected["sums"][0])
    assert torch.equal(found["sums"][1]["first"], expected["sums"][1]["first"])


@dataclass
class Result:
    """What comes out alone: torch meets it first when the model runs."""

    sums: Tensor


class OfResult(OfPair):
    """A tensor in, a dataclass out, by a matrix that stands transposed."""

    def forward(self, x: Tensor) -> Result:  # type: ignore[override]  # another call of the same layer
        """Run the layer."""
        return Result(sums=x @ self.layer.weight.t())


def test_a_dataclass_that_only_comes_out_is_a_structure_too() -> None:
    model, x = OfResult(), _pair().left
    traced = trace_model(model, [x])
    assert traced.output_names == ("sums",)
    assert torch.allclose(run(traced, {"x": x}).sums, model(x).sums)


def test_a_program_whose_weights_are_rewired_stays_as_it_is() -> None:
    model, x = OfResult().eval(), _pair().left
    trace_model(model, [x])  # torch knows the class from here on
    program = torch.export.export(model, (x,))
    before = str(program.graph)
    assert trace_program(program).graph.names == ("layer",)
    assert str(program.graph) == before


def test_a_call_of_other_tensors_keeps_its_structure() -> None:
    call = call_of(OfTuple(), [(torch.zeros(1, 4), torch.ones(1, 4)), torch.ones(1, 1)])
    again = call.with_tensors(["a", "b", "c"])
    assert again.args == (("a", "b"), "c")


def test_fields_that_do_not_make_the_dataclass_are_refused() -> None:
    with pytest.raises(DataError, match="takes a Pair"):
        trace_model(OfPair(), {"left": torch.zeros(2, 4)})


def test_annotations_tell_who_takes_a_structure() -> None:
    assert takes_structure(OfPair())
    assert not takes_structure(OfTuple())
    assert not takes_structure(nn.Linear(2, 2))


def test_an_exported_program_is_traced_as_its_module() -> None:
    model = OfTuple().eval()
    pair = _pair()
    args = ((pair.left, pair.right), torch.ones(5, 1))
    of_module = trace_model(model, args)
    program = torch.export.export(model, args)
    before = str(program.graph)
    traced = trace_program(program)
    assert str(program.graph) == before
    assert traced.graph.names == of_module.graph.names
    assert traced.graph.layers == of_module.graph.layers
    assert len(traced.input_names) == 3
    found = run(traced, traced.example)
    assert torch.equal(found["sums"][0], model(*args)["sums"][0])


@pytest.mark.parametrize("training", [nn.Dropout(0.5), nn.BatchNorm1d(4)])
def test_a_program_that_trains_is_refused(training: nn.Module) -> None:
    model = nn.Sequential(training, nn.Linear(4, 3)).train()
    with pytest.raises(ModelError, match="was training"):
        trace_program(torch.export.export(model, (torch.randn(5, 4),)))


def test_a_program_of_other_values_than_tensors_is_refused() -> None:
    class Scaled(nn.Linear):
        def forward(self, input: Tensor, factor: int = 1) -> Tensor:  # noqa: A002 - as torch names it
            return super().forward(input) * factor

    program = torch.export.export(Scaled(4, 3).eval(), (torch.randn(5, 4), 3))
    with pytest.raises(DataError, match="a tensor for each"):
        trace_program(program)
