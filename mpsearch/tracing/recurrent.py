"""Recurrent operators step by step, so that their weights are layers."""

from typing import Final

from torch import Tensor, fx
from torch.export import ExportedProgram, default_decompositions

from mpsearch.tracing.operators import operator_name

# Of input, state, weights, has_biases, layers, dropout, train, both ways, batch first.
SEQUENCES: Final = frozenset({"aten.lstm", "aten.gru", "aten.rnn_tanh", "aten.rnn_relu"})
_CELLS: Final = frozenset(
    {"aten.lstm_cell", "aten.gru_cell", "aten.rnn_tanh_cell", "aten.rnn_relu_cell"}
)
_LAYERS: Final = 4
_BOTH_WAYS: Final = 7
_BATCH_FIRST: Final = 8
_DIMENSIONS: Final = 3  # of a batch of sequences
# A step is some 20 nodes: more of them take minutes to export, and no runtime likes the file.
MOST_STEPS: Final = 128


def unrolled(program: ExportedProgram) -> ExportedProgram:
    """Return the program with recurrent operators as linear layers, called once for each step.

    Matrices that meet the input are called once for the whole sequence, those that meet the
    state once for each of its steps. Sequences whose length is free, or that take more than
    `MOST_STEPS` steps in all, stay as they are.
    """
    nodes = [node for node in program.graph.nodes if operator_name(node) in SEQUENCES | _CELLS]
    steps = [steps_of(node) for node in nodes if operator_name(node) in SEQUENCES]
    is_short = None not in steps and sum(each or 0 for each in steps) <= MOST_STEPS
    wanted = {node.target for node in nodes if is_short or operator_name(node) in _CELLS}
    if not wanted:
        return program
    known = default_decompositions()
    steps_apart: ExportedProgram = program.run_decompositions(
        {target: known[target] for target in wanted}
    )
    return steps_apart


def steps_of(node: fx.Node) -> int | None:
    """Return how many steps of its cells a sequence takes; None where that is not fixed."""
    source = node.args[0]
    value = source.meta.get("val") if isinstance(source, fx.Node) else None
    if not isinstance(value, Tensor) or len(node.args) <= _BATCH_FIRST:
        return None  # a packed batch, whose lengths differ
    is_batch_first = value.ndim == _DIMENSIONS and bool(node.args[_BATCH_FIRST])
    length = value.shape[1 if is_batch_first else 0]
    layers = int(str(node.args[_LAYERS])) * (2 if node.args[_BOTH_WAYS] else 1)
    return length * layers if type(length) is int else None
