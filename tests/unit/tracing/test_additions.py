"""Which additions are residual ones, against what is read off small networks by hand."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from mpsearch.core.placement import ADDITION_KEY, OWN_SLOT_KEY
from mpsearch.export.graph_edit import metadata
from mpsearch.testing.networks import Network, convolutions, forms, residual, transformer
from mpsearch.tracing import TracedModel, base_onnx, load_onnx, trace_model, trace_onnx
from mpsearch.tracing.additions import find_additions, mark_additions_


class Streams(nn.Module):
    """What may be added: a stream, a shortcut of its own, and much that is no residual."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(8, 8)
        self.first = nn.Linear(8, 8)
        self.second = nn.Linear(8, 8)
        self.shortcut = nn.Linear(8, 8)
        self.tables = nn.ModuleList([nn.Embedding(4, 8), nn.Embedding(5, 8)])
        self.shift = nn.Parameter(torch.randn(8))

    def forward(self, x: Tensor, ids: Tensor) -> Tensor:
        """Run the network."""
        x = self.stem(x) + self.shift  # a bias
        x += self.first(functional.gelu(x))
        x = 0.5 * x + 0.1 * x**3  # within one activation
        shortcut = self.shortcut(x)
        x = self.second(x).relu() + shortcut
        x = torch.add(x, self.first(x), alpha=2)  # no plain sum
        rows = self.tables[0](ids) + self.tables[1](ids)  # of embeddings
        y: Tensor = x + rows.mean(0)  # of another shape
        return y


@pytest.fixture(scope="module")
def streams() -> TracedModel:
    torch.manual_seed(0)
    example = {"x": torch.randn(2, 8), "ids": torch.randint(0, 4, (3,))}
    return trace_model(Streams(), example)


def test_only_sums_of_what_different_layers_made_are_residual_additions(
    streams: TracedModel,
) -> None:
    assert streams.graph.additions == {"first": "first", "second": "second"}
    # The addition belongs to the layer that runs last, on whichever side that stands.
    assert {each.name: each.own_slot for each in find_additions(streams)} == {
        "first": 1,
        "second": 0,
    }


@pytest.mark.parametrize("network", [residual, convolutions, forms, transformer])
def test_the_file_marks_every_addition_of_the_graph_with_its_own_side(network: Network) -> None:
    module, example = network()
    traced = trace_model(module.eval(), example)
    marks = [metadata(node.metadata_props) for node in base_onnx(traced).graph.node]
    found = {each[ADDITION_KEY]: each[OWN_SLOT_KEY] for each in marks if ADDITION_KEY in each}
    assert set(found) == set(traced.graph.additions)
    assert found
    # None of these models' exports swaps the sides.
    assert found == {each.name: str(each.own_slot) for each in find_additions(traced)}


def test_sides_that_a_file_swaps_are_told_apart() -> None:
    module, example = residual()
    traced = trace_model(module, example)
    model = base_onnx(traced)
    (node,) = (each for each in model.graph.node if each.op_type == "Add")
    before = metadata(node.metadata_props)[OWN_SLOT_KEY]
    node.input[:] = list(node.input)[::-1]
    kept = [each for each in node.metadata_props if ADDITION_KEY not in each.key]
    del node.metadata_props[:]
    node.metadata_props.extend(kept)
    mark_additions_(model, traced)
    assert metadata(node.metadata_props)[OWN_SLOT_KEY] == str(1 - int(before))


def test_a_file_with_another_number_of_sums_has_none_marked() -> None:
    module, example = residual()
    traced = trace_model(module, example)
    model = base_onnx(traced)
    (node,) = (each for each in model.graph.node if each.op_type == "Add")
    del node.metadata_props[:]
    twin = copy.deepcopy(node)
    twin.name, twin.output[0] = "twin", "twin"
    model.graph.node.append(twin)
    mark_additions_(model, traced)
    assert not any(ADDITION_KEY in metadata(each.metadata_props) for each in model.graph.node)


def test_models_of_onnx_files_have_the_same_additions(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    module, example = residual()
    path = tmp_path_factory.mktemp("file") / "model.onnx"
    path.write_bytes(base_onnx(trace_model(module, example)).SerializeToString())
    traced = trace_onnx(load_onnx(path), example)
    (name,) = traced.graph.additions
    assert traced.graph.index(name) == 1
    marks = [metadata(node.metadata_props) for node in base_onnx(traced).graph.node]
    assert [each[ADDITION_KEY] for each in marks if ADDITION_KEY in each] == [name]
