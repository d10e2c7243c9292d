"""Recurrent cells: LSTM, GRU and RNN, by torch's own operators where they compute the same."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

import torch
from torch import Tensor

from mpsearch.tracing.onnx_import.call import NodeCall, Operators

_MOST_STEPS: Final = 1024  # of a sequence that is written out step by step
_ACTIVATIONS: Final[dict[str, Callable[[Tensor], Tensor]]] = {
    "Sigmoid": torch.sigmoid,
    "Tanh": torch.tanh,
    "Relu": torch.relu,
}
_DEFAULTS: Final = {
    "LSTM": ("Sigmoid", "Tanh", "Tanh"),
    "GRU": ("Sigmoid", "Tanh"),
    "RNN": ("Tanh",),
}


@final
@dataclass(frozen=True, kw_only=True)
class _Cell:
    """One direction of a recurrent node: its weights, first states and settings."""

    op: str
    input_weight: Tensor  # (gates * hidden, inputs)
    state_weight: Tensor  # (gates * hidden, hidden)
    input_bias: Tensor
    state_bias: Tensor
    state: Tensor  # (batch, hidden)
    cell: Tensor | None
    peepholes: Tensor | None
    activations: Sequence[Callable[[Tensor], Tensor]]
    clip: float | None
    resets_late: bool


def _recurrent(call: NodeCall) -> list[Tensor | None]:
    value = call.tensor(0)
    is_batch_first = bool(call.attribute("layout", 0))
    value = value.transpose(0, 1) if is_batch_first else value
    direction = call.attribute("direction", "forward")
    backwards = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}[direction]
    sequences, states, cells = [], [], []
    for place, is_backward in enumerate(backwards):
        outputs, state, cell = _run(call, value, place=place, is_backward=is_backward)
        sequences.append(outputs)
        states.append(state)
        cells.append(cell)
    # Shapes: steps, directions, batch, hidden; and the same without steps.
    whole, last = torch.stack(sequences, dim=1), torch.stack(states)
    memories = [cell for cell in cells if cell is not None]
    last_cell = torch.stack(memories) if memories else None
    if is_batch_first:
        whole, last = whole.permute(2, 0, 1, 3), last.transpose(0, 1)
        last_cell = None if last_cell is None else last_cell.transpose(0, 1)
    return [whole, last, last_cell]


def _run(
    call: NodeCall, value: Tensor, *, place: int, is_backward: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    cell = _cell(call, value, place=place)
    lengths = call.optional(4)
    if lengths is not None and not _is_full(call, steps=value.shape[0]):
        return _by_lengths(cell, value, lengths=lengths, is_backward=is_backward)
    ordered = value.flip(0) if is_backward else value
    fast = _fast(cell, ordered)
    outputs, state, memory = _step_by_step(call, cell, value=ordered) if fast is None else fast
    return (outputs.flip(0) if is_backward else outputs), state, memory


def _is_full(call: NodeCall, *, steps: Any) -> bool:  # noqa: ANN401 - a number or a symbol
    """Return whether every sequence is known to be as long as the whole."""
    if not call.is_known(4):
        return False
    return all(bool(each == steps) for each in call.sizes(4))


def _cell(call: NodeCall, value: Tensor, *, place: int) -> _Cell:
    op = call.node.op
    weight, recurrence = call.tensor(1)[place], call.tensor(2)[place]
    hidden = recurrence.shape[-1]
    rows = weight.shape[0]
    bias = call.optional(3)
    both = torch.zeros(2 * rows, dtype=value.dtype) if bias is None else bias[place]
    names = call.attribute("activations", _DEFAULTS[op] * 2)
    own = names[place * len(_DEFAULTS[op]) : (place + 1) * len(_DEFAULTS[op])]
    unknown = sorted(set(own) - set(_ACTIVATIONS))
    if unknown:
        raise call.wrong(f"uses the activation {unknown[0]!r}", f"one of {list(_ACTIVATIONS)}")
    return _Cell(
        op=op,
        input_weight=weight,
        state_weight=recurrence,
        input_bias=both[:rows],
        state_bias=both[rows:],
        state=_first(call, 5, place=place, value=value, hidden=hidden),
        cell=_first(call, 6, place=place, value=value, hidden=hidden) if op == "LSTM" else None,
        peepholes=None if op != "LSTM" or not call.has(7) else call.tensor(7)[place],
        activations=[_ACTIVATIONS[name] for name in own],
        clip=call.node.attributes.get("clip"),
        resets_late=bool(call.attribute("linear_before_reset", 0)),
    )


def _first(call: NodeCall, slot: int, *, place: int, value: Tensor, hidden: int) -> Tensor:
    given = call.optional(slot)
    if given is None:
        return torch.zeros([value.shape[1], hidden], dtype=value.dtype)
    return given[:, place] if call.attribute("layout", 0) else given[place]


def _fast(cell: _Cell, value: Tensor) -> tuple[Tensor, Tensor, Tensor | None] | None:
    """Return what torch's own operator gives, where it is the same."""
    usual = [_ACTIVATIONS[name] for name in _DEFAULTS[cell.op]]
    if cell.clip is not None or cell.peepholes is not None or list(cell.activations) != usual:
        return None
    order = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}[cell.op]
    weights = [
        _reordered(each, order)
        for each in (cell.input_weight, cell.state_weight, cell.input_bias, cell.state_bias)
    ]
    state = cell.state.unsqueeze(0)
    rest = (True, 1, 0.0, False, False, False)  # biases, layers, dropout, train, both ways, layout
    if cell.op == "LSTM":
        assert cell.cell is not None
        done, last, memory = torch.lstm(value, [state, cell.cell.unsqueeze(0)], weights, *rest)
        return done, last.squeeze(0), memory.squeeze(0)
    if cell.op == "GRU" and not cell.resets_late:
        return None
    function = torch.gru if cell.op == "GRU" else torch.rnn_tanh
    done, last = function(value, state, weights, *rest)
    return done, last.squeeze(0), None


def _reordered(rows: Tensor, order: Sequence[int]) -> Tensor:
    parts = rows.chunk(len(order), dim=0)
    return torch.cat([parts[place] for place in order]) if len(order) > 1 else rows


def _step_by_step(
    call: NodeCall, cell: _Cell, *, value: Tensor
) -> tuple[Tensor, Tensor, Tensor | None]:
    steps = value.shape[0]
    if not isinstance(steps, int) or steps > _MOST_STEPS:
        raise call.wrong(
            f"runs over {steps} steps with settings that torch has no operator for",
            f"a fixed length of at most {_MOST_STEPS}, or the usual activations",
        )
    state, memory, outputs = cell.state, cell.cell, []
    for step in range(steps):
        state, memory = _step(cell, value[step], state=state, memory=memory)
        outputs.append(state)
    return torch.stack(outputs), state, memory


def _by_lengths(
    cell: _Cell, value: Tensor, *, lengths: Tensor, is_backward: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Run sequences of several lengths: behind its end a sequence gives zeros and stays."""
    state, memory = cell.state, cell.cell
    steps = int(value.shape[0])
    outputs: dict[int, Tensor] = {}
    for step in reversed(range(steps)) if is_backward else range(steps):
        new_state, new_memory = _step(cell, value[step], state=state, memory=memory)
        inside = (step < lengths).unsqueeze(-1)
        state = torch.where(inside, new_state, state)
        if memory is not None and new_memory is not None:
            memory = torch.where(inside, new_memory, memory)
        outputs[step] = torch.where(inside, new_state, torch.zeros_like(new_state))
    return torch.stack([outputs[step] for step in range(steps)]), state, memory


def _step(
    cell: _Cell, value: Tensor, *, state: Tensor, memory: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    given = torch.nn.functional.linear(value, cell.input_weight, cell.input_bias)
    if cell.op == "GRU":
        return _gru_step(cell, given, state=state), None
    gates = given + torch.nn.functional.linear(state, cell.state_weight, cell.state_bias)
    if cell.op == "RNN":
        return cell.activations[0](_clipped(cell, gates)), None
    assert memory is not None
    return _lstm_step(cell, gates, memory=memory)


def _lstm_step(cell: _Cell, gates: Tensor, *, memory: Tensor) -> tuple[Tensor, Tensor]:
    sigmoid, tanh, last = cell.activations
    into, out, forget, new = gates.chunk(4, dim=-1)
    peep_in, peep_out, peep_forget = (
        cell.peepholes.chunk(3) if cell.peepholes is not None else (None, None, None)
    )
    into, forget = (
        _peeped(into, peep_in, memory=memory),
        _peeped(forget, peep_forget, memory=memory),
    )
    kept = sigmoid(_clipped(cell, forget)) * memory
    memory = kept + sigmoid(_clipped(cell, into)) * tanh(_clipped(cell, new))
    out = _peeped(out, peep_out, memory=memory)
    return sigmoid(_clipped(cell, out)) * last(memory), memory


def _peeped(gate: Tensor, weight: Tensor | None, *, memory: Tensor) -> Tensor:
    return gate if weight is None else gate + weight * memory


def _gru_step(cell: _Cell, given: Tensor, *, state: Tensor) -> Tensor:
    sigmoid, tanh = cell.activations
    update, reset, new = given.chunk(3, dim=-1)
    weights, biases = cell.state_weight.chunk(3), cell.state_bias.chunk(3)
    linear = torch.nn.functional.linear
    update = sigmoid(_clipped(cell, update + linear(state, weights[0], biases[0])))
    reset = sigmoid(_clipped(cell, reset + linear(state, weights[1], biases[1])))
    if cell.resets_late:
        new = new + reset * linear(state, weights[2], biases[2])
    else:
        new = new + linear(reset * state, weights[2], biases[2])
    return (1 - update) * tanh(_clipped(cell, new)) + update * state


def _clipped(cell: _Cell, value: Tensor) -> Tensor:
    return value if cell.clip is None else value.clamp(-cell.clip, cell.clip)


RECURRENT: Final[Operators] = {"GRU": _recurrent, "LSTM": _recurrent, "RNN": _recurrent}
