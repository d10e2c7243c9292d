"""Recurrent networks step by step compute what torch computes, quantised matrices included."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mpsearch.core.formats import format_named
from mpsearch.core.plan import Plan
from mpsearch.execution import quantised_model, run
from mpsearch.quant.fake_torch import fake_quantise_weight
from mpsearch.tracing import TracedModel, trace_model
from mpsearch.tracing.recurrent import MOST_STEPS

_STEPS = 5
_SIZES = (8, 6)


class Sequences(nn.Module):
    """A recurrent module over whole sequences, and a head."""

    def __init__(self, kind: str, **options: Any) -> None:  # noqa: ANN401 - as torch's modules
        super().__init__()
        self.recurrent = getattr(nn, kind)(*_SIZES, **options)
        both = 2 if options.get("bidirectional") else 1
        self.head = nn.Linear(both * _SIZES[1], 4)

    def forward(self, x: Tensor) -> Tensor:
        """Run the network."""
        result: Tensor = self.head(self.recurrent(x)[0])
        return result


class Cells(nn.Module):
    """An LSTM cell that is called step by step."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(*_SIZES)

    def forward(self, x: Tensor) -> Tensor:
        """Run the network."""
        state = (x.new_zeros(x.shape[0], _SIZES[1]), x.new_zeros(x.shape[0], _SIZES[1]))
        for step in range(x.shape[1]):
            state = self.cell(x[:, step], state)
        return state[0]


def _traced(model: nn.Module, *, steps: int = _STEPS) -> tuple[TracedModel, Tensor]:
    torch.manual_seed(0)
    x = torch.randn(3, steps, _SIZES[0])
    return trace_model(model.eval(), [x[:2]]), x


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("LSTM", {"bidirectional": True, "num_layers": 2, "batch_first": True}),
        ("LSTM", {"bias": False, "batch_first": True}),
        ("GRU", {"bidirectional": True, "batch_first": True}),
        ("RNN", {"nonlinearity": "relu", "batch_first": True}),
    ],
)
def test_unrolled_networks_compute_what_torch_computes(kind: str, options: dict[str, Any]) -> None:
    torch.manual_seed(1)
    model = Sequences(kind, **options)
    traced, x = _traced(model)
    torch.testing.assert_close(run(traced, {"x": x}), model(x), rtol=1e-5, atol=1e-6)
    matrices = {
        f"recurrent.{name}" for name, each in model.recurrent.named_parameters() if each.ndim == 2
    }
    assert set(traced.graph.names) == matrices | {"head"}
    assert not traced.graph.left_out


def test_matrices_of_the_state_are_called_once_for_each_step() -> None:
    traced, x = _traced(Sequences("LSTM", batch_first=True))
    wide, (inputs, states) = 4 * _SIZES[1], _SIZES
    by_name = {layer.name: layer for layer in traced.graph.layers}
    of_input, of_state = (by_name[f"recurrent.weight_{each}_l0"] for each in ("ih", "hh"))
    assert (of_input.calls, of_input.macs) == (1, 2 * _STEPS * wide * inputs)
    assert (of_state.calls, of_state.macs) == (_STEPS, 2 * _STEPS * wide * states)
    assert len(x) == 3


@pytest.mark.parametrize("form", ["whole", "cells"])
@pytest.mark.parametrize("name", ["w8", "w3"])
def test_quantised_matrices_are_those_of_the_module(name: str, form: str) -> None:
    """The module itself, with its matrices stored and put back, is the second method."""
    torch.manual_seed(2)
    model = Sequences("LSTM", num_layers=2, batch_first=True) if form == "whole" else Cells()
    traced, x = _traced(model)
    plan = Plan(assignment=dict.fromkeys(traced.graph.names, name), runtime="simulation")
    found = run(quantised_model(traced, plan), {"x": x})
    plain = model(x)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.copy_(fake_quantise_weight(parameter, format_named(name).weight))
    torch.testing.assert_close(found, model(x), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(found, plain, atol=1e-4)


def test_long_sequences_stay_whole_and_are_told() -> None:
    traced, _ = _traced(Sequences("GRU", batch_first=True), steps=MOST_STEPS + 1)
    assert traced.graph.names == ("head",)
    reasons = dict(traced.graph.left_out)
    assert set(reasons) == {"recurrent.weight_ih_l0", "recurrent.weight_hh_l0"}
    assert all(f"of {MOST_STEPS + 1} steps" in reason for reason in reasons.values())


def test_sequences_of_free_length_stay_whole_and_are_told() -> None:
    """Where time comes first, the size that stays free is the length."""
    traced, _ = _traced(Sequences("LSTM"))
    assert traced.graph.names == ("head",)
    assert all("varies" in reason for reason in traced.graph.left_out.values())
    assert len(traced.graph.left_out) == 2


def test_both_directions_count_as_steps() -> None:
    half = MOST_STEPS // 2 + 1
    traced, _ = _traced(Sequences("RNN", bidirectional=True, batch_first=True), steps=half)
    assert len(traced.graph.left_out) == 4
