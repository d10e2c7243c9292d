"""Tracing finds every layer, in every form, and changes neither numbers nor the model."""

import pytest
import torch
from torch import Tensor, nn

from mpsearch.core.graph import Op
from mpsearch.errors import DataError, ModelError
from mpsearch.testing import networks
from mpsearch.tracing import trace_model

NETWORKS = (
    networks.forms, networks.convolutions, networks.upscaling, networks.transformer,
    networks.wrapped,
)  # fmt: skip


def _call(model: nn.Module, example: dict[str, Tensor]) -> Tensor:
    model.eval()
    output = model(example) if isinstance(model, networks.Wrapped) else model(**example)
    result = output["logits"] if isinstance(output, dict) else output
    assert isinstance(result, Tensor)
    return result


def _call_module(module: nn.Module, example: dict[str, Tensor], model: nn.Module) -> Tensor:
    output = module(example) if isinstance(model, networks.Wrapped) else module(**example)
    result = output["logits"] if isinstance(output, dict) else output
    assert isinstance(result, Tensor)
    return result


@pytest.mark.parametrize("network", NETWORKS)
def test_graph_computes_what_the_model_computes(network: networks.Network) -> None:
    model, example = network()
    traced = trace_model(model, example)
    with torch.no_grad():
        torch.testing.assert_close(
            _call_module(traced.module, example, model), _call(model, example)
        )


@pytest.mark.parametrize("network", NETWORKS)
def test_batch_size_is_free(network: networks.Network) -> None:
    model, example = network()
    traced = trace_model(model, {key: value[:1] for key, value in example.items()})
    larger = {key: torch.cat([value, value, value[:1]]) for key, value in example.items()}
    with torch.no_grad():
        torch.testing.assert_close(_call_module(traced.module, larger, model), _call(model, larger))


def test_length_of_tokens_is_free() -> None:
    model, example = networks.transformer()
    traced = trace_model(model, example)
    longer = {key: torch.cat([value, value], dim=1) for key, value in example.items()}
    with torch.no_grad():
        torch.testing.assert_close(_call_module(traced.module, longer, model), _call(model, longer))


def test_every_linear_form_is_a_layer_under_the_path_of_its_weight() -> None:
    model, example = networks.forms()
    graph = trace_model(model, example).graph
    shapes = {layer.name: (layer.op, layer.weight_shape, layer.calls) for layer in graph.layers}
    assert shapes == {
        "emb": (Op.EMBEDDING, (10, 8), 1),
        "twice": (Op.LINEAR, (8, 8), 2),
        "free": (Op.LINEAR, (8, 8), 1),
        "turned": (Op.LINEAR, (8, 8), 1),
        "matrix": (Op.LINEAR, (6, 8), 2),
        "back": (Op.LINEAR, (8, 6), 2),
        "head": (Op.LINEAR, (10, 8), 1),
    }
    assert [graph.layers[place].name for place in graph.shared_weights[0]] == ["emb", "head"]
    assert graph.other_parameters == 8 + 8  # the bias of `twice`, and `offset`


def test_macs_count_output_numbers_times_inputs_of_all_calls() -> None:
    model, example = networks.forms()
    macs = {layer.name: layer.macs for layer in trace_model(model, example).graph.layers}
    assert macs["emb"] == 0
    assert macs["twice"] == 2 * 10 * 8 * 8
    assert macs["matrix"] == 2 * 10 * 8 * 6
    model, example = networks.convolutions()
    macs = {layer.name: layer.macs for layer in trace_model(model, example).graph.layers}
    assert macs["first"] == 2 * 4 * 8 * 8 * 3 * 9
    assert macs["depthwise"] == 2 * 4 * 8 * 8 * 9


def test_edges_pass_through_operators_without_weight() -> None:
    model, example = networks.convolutions()
    graph = trace_model(model, example).graph
    edges = {(graph.names[source], graph.names[target]) for source, target in graph.edges}
    # The residual add joins `first` and `depthwise` before `flat`.
    assert edges == {
        ("first", "depthwise"),
        ("first", "flat"),
        ("depthwise", "flat"),
        ("flat", "head"),
    }


def test_layers_that_read_one_tensor_say_so() -> None:
    class Fork(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right, self.last = (nn.Linear(4, 4) for _ in range(3))
            self.drop = nn.Dropout(0.5)

        def forward(self, x: Tensor) -> Tensor:
            x = x.tanh()
            forked = self.left(x) + self.right(self.drop(x).reshape(-1, 4))
            result = self.last(forked)
            assert isinstance(result, Tensor)
            return result

    layers = trace_model(Fork(), [torch.randn(2, 4)]).graph.layers
    assert layers[0].inputs_from == layers[1].inputs_from != layers[2].inputs_from


def test_modules_that_share_a_weight_are_layers_of_their_own() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    traced = trace_model(model, [torch.randn(2, 4)])
    assert traced.graph.names == ("0", "2")
    assert traced.graph.shared_weights == ((0, 1),)


def test_a_root_is_cut_off_the_names() -> None:
    model, example = networks.wrapped()
    assert trace_model(model, example, root="model.").graph.names == ("0", "2")


def test_fingerprint_follows_structure_and_weights() -> None:
    model, example = networks.convolutions()
    first = trace_model(model, example).graph.fingerprint
    assert trace_model(model, example).graph.fingerprint == first
    assert isinstance(model, networks.Convolutions)
    with torch.no_grad():
        model.first.weight[0, 0, 0, 0] += 1e-6
    assert trace_model(model, example).graph.fingerprint != first
    thin = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    changed = nn.Sequential(thin[0], nn.Tanh())
    inputs = [torch.randn(2, 4)]
    assert (
        trace_model(thin, inputs).graph.fingerprint
        != trace_model(changed, inputs).graph.fingerprint
    )


def test_the_model_keeps_its_mode_and_its_parameters() -> None:
    model, example = networks.convolutions()
    model.train()
    assert isinstance(model, networks.Convolutions)
    model.depthwise.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    traced = trace_model(model, example)
    assert model.training
    assert not model.depthwise.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert traced.weight("first").data_ptr() == model.first.weight.data_ptr()


def test_weights_that_are_not_finite_are_refused_by_name() -> None:
    layer = nn.Linear(4, 4)
    with torch.no_grad():
        layer.weight[1, 2] = float("nan")
    with pytest.raises(ModelError, match="Layer '0' has 1 weights of 16 that are NaN"):
        trace_model(nn.Sequential(layer), [torch.zeros(2, 4)])


def test_other_precisions_are_refused() -> None:
    with pytest.raises(ModelError, match="bfloat16"):
        trace_model(
            nn.Sequential(nn.Linear(4, 4)).bfloat16(), [torch.zeros(2, 4, dtype=torch.bfloat16)]
        )


def test_a_model_without_layers_is_refused() -> None:
    with pytest.raises(ModelError, match="no layer to quantise"):
        trace_model(nn.Sequential(nn.ReLU()), [torch.zeros(2, 4)])


def test_a_model_that_cannot_be_exported_says_why() -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            result = self.layer(x) if bool(x.sum() > 0) else x
            assert isinstance(result, Tensor)
            return result

    with pytest.raises(ModelError, match=r"torch\.export cannot turn Branching.*torch\.where"):
        trace_model(Branching(), [torch.zeros(2, 4)])


@pytest.mark.parametrize("example", [[], [torch.tensor(1.0)]])
def test_examples_without_tensors_are_refused(example: list[Tensor]) -> None:
    with pytest.raises(DataError, match="example inputs"):
        trace_model(nn.Sequential(nn.Linear(4, 4)), example)


def test_unknown_inputs_are_refused() -> None:
    model, example = networks.transformer()
    with pytest.raises(DataError, match="'tokens'"):
        trace_model(model, {"tokens": example["input_ids"], "mask": example["attention_mask"]})


def test_a_batch_is_checked_against_the_graph() -> None:
    model, example = networks.convolutions()
    traced = trace_model(model, example)
    with pytest.raises(DataError, match="lacks the input 'image'"):
        traced.inputs({"x": example["image"]})
    with pytest.raises(DataError, match=r"shape \(2, 3, 9, 9\). Expected \(any, 3, 8, 8\)"):
        traced.inputs({"image": torch.zeros(2, 3, 9, 9)})
