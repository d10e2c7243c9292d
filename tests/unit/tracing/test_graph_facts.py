"""Facts around layers, against what is read off small networks by hand."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from mpsearch.core.graph import LayerGraph
from mpsearch.cost.bops import bops_table
from mpsearch.cost.roofline import DeviceDescription, estimated
from mpsearch.errors import ProblemError, UnknownLayerError
from mpsearch.execution.liveness import liveness
from mpsearch.tracing import trace_model

_FLOAT = 4


class Blocks(nn.Module):
    """Two residual blocks on one stream, and two heads that read its end."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.first = nn.Conv2d(4, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.left = nn.Conv2d(4, 2, 1)
        self.right = nn.Conv2d(4, 2, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Run the network."""
        x = functional.relu(self.norm(self.stem(image)))
        x = functional.relu(self.first(x)) + x
        x = functional.silu(self.second(x) + x)
        return self.left(x), self.right(x).tanh()


@pytest.fixture(scope="module")
def graph() -> LayerGraph:
    torch.manual_seed(0)
    return trace_model(Blocks(), {"image": torch.randn(2, 3, 8, 8)}).graph


def test_norms_and_activations_behind_a_layer_alone_are_fused(graph: LayerGraph) -> None:
    fused = {layer.name: layer.fused for layer in graph.layers}
    assert fused == {
        "stem": ("batch_norm", "relu"),
        "first": ("relu",),
        "second": (),  # an addition comes before its activation
        "left": (),
        "right": ("tanh",),
    }


def test_an_activation_that_something_reads_before_is_not_fused() -> None:
    class Forked(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - as torch names it
            x = super().forward(input)
            return x.relu() * x

    assert trace_model(Forked(4, 4), [torch.randn(2, 4)]).graph.layers[0].fused == ()


def test_calls_are_fused_with_what_follows_all_of_them() -> None:
    class Twice(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - as torch names it
            return super().forward(super().forward(input).relu().tanh()).relu().sigmoid()

    assert trace_model(Twice(4, 4), [torch.randn(2, 4)]).graph.layers[0].fused == ("relu",)


def test_residual_groups_are_the_layers_that_meet_in_additions(graph: LayerGraph) -> None:
    names = graph.names
    groups = {tuple(names[place] for place in group) for group in graph.residuals}
    assert groups == {("stem", "first"), ("stem", "first", "second")}


def test_adding_a_parameter_or_a_number_joins_nothing() -> None:
    class Shifted(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - as torch names it
            return super().forward(super().forward(input) + self.bias + 1)

    assert trace_model(Shifted(4, 4), [torch.randn(2, 4)]).graph.residuals == ()


def test_layers_of_one_input_are_grouped(graph: LayerGraph) -> None:
    assert [[graph.names[p] for p in group] for group in graph.shared_inputs] == [["left", "right"]]


class Chain(nn.Module):
    """Sizes a, then b, then c: what is alive follows by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Linear(8, 32)
        self.narrow = nn.Linear(32, 4)
        self.skip = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Run the network."""
        hidden = self.wide(x).view(x.shape[0], 4, 8).flatten(1).relu()
        result: Tensor = self.narrow(hidden) + self.skip(x)
        return result


def test_bytes_alive_at_each_step_are_those_counted_by_hand() -> None:
    samples = 3
    traced = trace_model(Chain(), {"x": torch.randn(2, 8)})
    found = liveness(traced, {"x": torch.randn(samples, 8)})
    x, hidden, out = (samples * size * _FLOAT for size in (8, 32, 4))
    steps = list(found.bytes_at.items())
    tensors = {name: size for name, size in steps if "sym" not in name}
    assert list(tensors.values()) == [
        x + hidden,  # wide
        x + hidden,  # view: no bytes of its own
        x + hidden,  # flatten: the same
        x + 2 * hidden,  # relu reads one and makes another
        x + hidden + out,  # narrow; x stays for the skip
        x + 2 * out,  # skip
        3 * out,  # the addition
    ]
    assert found.peak_bytes == x + 2 * hidden
    assert found.peak_node == "relu"


def test_outputs_stay_alive_to_the_end() -> None:
    class Early(nn.Linear):
        def forward(self, input: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]  # noqa: A002 - two outputs, as torch names it
            hidden = super().forward(input)
            return hidden, hidden.sum(1).exp().neg()

    traced = trace_model(Early(8, 32), {"input": torch.randn(2, 8)})
    found = liveness(traced, {"input": torch.randn(3, 8)})
    hidden, number = 3 * 32 * _FLOAT, 3 * _FLOAT
    assert list(found.bytes_at.values())[-1] == hidden + 2 * number


def test_bytes_alive_grow_with_the_samples() -> None:
    traced = trace_model(Chain(), {"x": torch.randn(2, 8)})
    one, four = (liveness(traced, {"x": torch.randn(size, 8)}).peak_bytes for size in (1, 4))
    assert four == 4 * one


def test_runs_multiply_operations_and_time_but_not_bytes(graph: LayerGraph) -> None:
    more = graph.with_runs({"*": 2, "first": 20})
    factor = [20 if name == "first" else 2 for name in graph.names]
    once, often = (
        bops_table(each, formats=("fp32", "w8a8"), base="fp32") for each in (graph, more)
    )
    assert (often == once * torch.tensor(factor)[:, None].numpy()).all()
    device = DeviceDescription(
        name="d", operations={"fp32": 1e9}, bytes_per_second=1e9, overhead_seconds=1e-6
    )
    rows = [estimated(each, device, formats=("w8",)).rows for each in (graph, more)]
    for before, after, times in zip(*rows, factor, strict=True):
        for resource, amount in before.amount.items():
            assert after.amount[resource] == pytest.approx(times * amount)
    assert [each.parameters for each in more.layers] == [each.parameters for each in graph.layers]
    assert [each.macs for each in more.layers] == [each.macs for each in graph.layers]


def test_calls_count_in_macs_operations_and_estimates() -> None:
    class Thrice(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - as torch names it
            once = super().forward
            return once(once(once(input).relu()).relu())

    one = trace_model(nn.Linear(4, 4), [torch.randn(2, 4)]).graph
    three = trace_model(Thrice(4, 4), [torch.randn(2, 4)]).graph
    assert three.layers[0].macs == 3 * one.layers[0].macs == 3 * 2 * 4 * 4
    tables = [bops_table(each, formats=("w8a8",), base="fp32") for each in (one, three)]
    assert tables[1].item() == 3 * tables[0].item() == 3 * 32 * 64
    device = DeviceDescription(
        name="d", operations={"fp32": 1e12}, bytes_per_second=1e6, overhead_seconds=1e-6
    )
    first, second = (
        estimated(each, device, formats=("fp32",)).rows[0].amount for each in (one, three)
    )
    # Memory decides: weight, input and output are moved at every call.
    moved = (16 + 8 + 8) * _FLOAT
    assert first["latency_ns"] == pytest.approx(1e3 + moved * 1e3)
    assert second["latency_ns"] == pytest.approx(3 * first["latency_ns"])


@pytest.mark.parametrize(
    ("runs", "error"), [({"stem": 0}, ProblemError), ({"no": 2}, UnknownLayerError)]
)
def test_runs_that_cannot_be_are_refused(
    graph: LayerGraph, runs: dict[str, int], error: type[Exception]
) -> None:
    with pytest.raises(error):
        graph.with_runs(runs)
