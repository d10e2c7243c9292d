"""Traces equal closed forms and exact Hessians, within their standard errors."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from mpsearch.core.cache import Cache
from mpsearch.core.formats import FORMATS
from mpsearch.errors import DataError, MeasurementError, UsageError
from mpsearch.quant.fake_torch import fake_quantise_weight
from mpsearch.sensitivity import HessianTrace
from mpsearch.sensitivity.draws import random_signs
from mpsearch.sensitivity.hessian_trace import Probes
from mpsearch.sensitivity.output_traces import Traces, root_of_fisher
from mpsearch.sensitivity.request import Request
from mpsearch.tasks import TASKS, AbstractTask, Batch, CallableTask, Dataset, read_data
from mpsearch.testing import networks
from mpsearch.tracing import TracedModel, trace_model

# A miss by 5 standard errors has a probability below 1e-5 where probes are many: the
# estimates are sums of bounded terms.
WIDE = 5


def _data(batch: dict[str, Tensor], folder: Path) -> Dataset:
    samples = len(next(iter(batch.values())))
    return read_data(
        [
            {name: value[cut : cut + 4] for name, value in batch.items()}
            for cut in range(0, samples, 4)
        ],
        input_names=tuple(batch),
        batch_size=4,
        folder=folder,
    )


def _request(traced: TracedModel, data: Dataset, *, task: AbstractTask, **changes: Any) -> Request:  # noqa: ANN401 - fields
    fields: dict[str, Any] = {
        "formats": {"w4": FORMATS["w4"]},
        "pairs": dict.fromkeys(traced.graph.names, ("w4",)),
        "quantizers": {},
        "dynamic_group": None,
        "cache": None,
        "progress": None,
        "seed": 0,
    }
    return Request(traced=traced, task=task, data=data, **fields | changes)


def _close(traces: Traces, exact: list[float]) -> bool:
    return bool((np.abs(traces.mean - np.array(exact)) <= WIDE * traces.stderr + 1e-6).all())


def test_a_logistic_model_has_its_closed_form(tmp_path: Path) -> None:
    """Tr H = mean of |x|^2 (1 - |p|^2), whatever the labels."""
    torch.manual_seed(0)
    layer, samples = nn.Linear(5, 3), torch.randn(10, 5)
    traced = trace_model(nn.Sequential(layer), {"input": samples[:2]})
    data = _data({"input": samples, "label": torch.randint(0, 3, (10,))}, tmp_path)
    p = layer(samples).softmax(dim=1)
    exact = float((samples.square().sum(dim=1) * (1 - p.square().sum(dim=1))).mean())
    request = _request(traced, data, task=TASKS["classification"])
    traces = HessianTrace(draws=200, probes="weights").traces(request)
    assert _close(traces, [exact])
    assert traces.stderr[0] < 0.1 * exact


def test_a_linear_model_has_its_closed_form(tmp_path: Path) -> None:
    """Half the squared error to targets has Tr H = outputs x mean |x|^2."""
    torch.manual_seed(1)
    layer, samples = nn.Linear(4, 3), torch.randn(8, 4)
    traced = trace_model(nn.Sequential(layer), {"input": samples[:2]})
    data = _data({"input": samples, "label": torch.randn(8, 3)}, tmp_path)
    exact = 3 * float(samples.square().sum(dim=1).mean())
    request = _request(traced, data, task=CallableTask(function=_same))
    assert _close(HessianTrace(draws=200, probes="weights").traces(request), [exact])


def _same(raw: Tensor, batch: Batch) -> Tensor:  # noqa: ARG001 - a task's callable
    return raw


class SmallConv(nn.Module):
    """Convolution, curve, mean, logits."""

    def __init__(self, *, curve: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.curve = curve
        self.conv = nn.Conv2d(2, 3, 3)
        self.head = nn.Linear(3, 3)

    def forward(self, image: Tensor) -> Tensor:
        """Run the network."""
        result = self.head(self.curve(self.conv(image)).mean((2, 3)))
        assert isinstance(result, Tensor)
        return result


def _exact_traces(model: nn.Module, batch: dict[str, Tensor], labels: Tensor) -> list[float]:
    """Return the diagonal of each layer's whole Hessian, summed."""
    found = []
    for name in ("conv", "head"):
        weight = dict(model.named_parameters())[f"{name}.weight"].detach()

        def loss(flat: Tensor, name: str = name, shape: torch.Size = weight.shape) -> Tensor:
            changed = {f"{name}.weight": flat.reshape(shape)}
            logits = torch.func.functional_call(model, changed, kwargs=batch)
            return functional.cross_entropy(logits, labels)

        hessian = torch.autograd.functional.hessian(loss, weight.flatten())  # type: ignore[no-untyped-call]  # torch leaves it untyped
        assert isinstance(hessian, Tensor)
        found.append(float(hessian.diagonal().sum()))
    return found


@pytest.mark.parametrize("probes", ["weights", "layers"])
@pytest.mark.parametrize("limit", [None, 1])
def test_a_convolutional_model_agrees_with_its_whole_hessian(
    tmp_path: Path, *, probes: Probes, limit: int | None
) -> None:
    torch.manual_seed(2)
    model, image = SmallConv(curve=torch.tanh), torch.randn(6, 2, 5, 5)
    labels = torch.randint(0, 3, (6,))
    traced = trace_model(model, {"image": image[:2]})
    data = _data({"image": image, "label": labels}, tmp_path)
    request = _request(traced, data, task=TASKS["classification"], memory_limit_bytes=limit)
    traces = HessianTrace(draws=60, probes=probes).traces(request)
    assert _close(traces, _exact_traces(model, {"image": image}, labels))
    batches = 2
    assert traces.products == 60 * batches * (2 if probes == "layers" else 1)


def test_probes_of_outputs_see_the_whole_hessian_where_outputs_are_piecewise_linear(
    tmp_path: Path,
) -> None:
    """Behind a ReLU each layer's weight moves the logits in straight lines; labels cancel."""
    torch.manual_seed(2)
    model, image = SmallConv(curve=torch.relu), torch.randn(6, 2, 5, 5)
    labels = torch.randint(0, 3, (6,))
    traced = trace_model(model, {"image": image[:2]})
    data = _data({"image": image, "label": labels}, tmp_path)
    traces = HessianTrace(draws=400).traces(_request(traced, data, task=TASKS["classification"]))
    exact = _exact_traces(model, {"image": image}, labels)
    assert traces.mean.tolist() == pytest.approx(exact, rel=0.05)
    assert traces.products == 400 * 2


def test_without_labels_it_is_the_curvature_of_the_divergence(tmp_path: Path) -> None:
    """Of logits: Tr H = mean |x|^2 (1 - |p|^2), the same as with labels of the model."""
    torch.manual_seed(3)
    layer, samples = nn.Linear(5, 3), torch.randn(8, 5)
    traced = trace_model(nn.Sequential(layer), {"input": samples[:2]})
    p = layer(samples).softmax(dim=1)
    exact = float((samples.square().sum(dim=1) * (1 - p.square().sum(dim=1))).mean())
    request = _request(traced, _data({"input": samples}, tmp_path), task=TASKS["classification"])
    assert _close(HessianTrace(draws=200, probes="weights").traces(request), [exact])


def test_probes_of_outputs_have_the_closed_form_too(tmp_path: Path) -> None:
    torch.manual_seed(3)
    layer, samples = nn.Linear(5, 3), torch.randn(8, 5)
    traced = trace_model(nn.Sequential(layer), {"input": samples[:2]})
    p = layer(samples).softmax(dim=1)
    exact = float((samples.square().sum(dim=1) * (1 - p.square().sum(dim=1))).mean())
    request = _request(traced, _data({"input": samples}, tmp_path), task=TASKS["classification"])
    traces = HessianTrace(draws=300).traces(request)
    # Their error counts samples too, so the miss must be far smaller than it.
    assert traces.mean[0] == pytest.approx(exact, rel=0.1)
    assert traces.products == 300 * 2


def test_layers_of_one_shape_have_signs_of_their_own(tmp_path: Path) -> None:
    """Equal signs would turn the cross terms of two layers into a bias."""
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6))
    traced = trace_model(model, {"input": torch.randn(2, 6)})
    data = _data({"input": torch.randn(4, 6)}, tmp_path)
    request = _request(traced, data, task=TASKS["classification"])
    (first,), (second,) = (
        HessianTrace(probes="weights")._directions(request, draw=draw) for draw in (0, 1)
    )
    apart = HessianTrace(probes="layers")._directions(request, draw=0)
    assert [list(each) for each in apart] == [["0"], ["2"]]
    assert all(torch.equal(signs, first[layer]) for each in apart for layer, signs in each.items())
    agreement = [
        float((one == other).float().mean())
        for one, other in ((first["0"], first["2"]), (first["0"], second["0"]))
    ]
    assert max(agreement) < 0.95  # of 36 signs, half agree by chance
    assert all(set(signs.flatten().tolist()) == {-1.0, 1.0} for signs in first.values())


def test_the_root_is_that_of_the_fisher_matrix() -> None:
    """B B^T = diag(p) - p p^T, column by column."""
    torch.manual_seed(0)
    logits = torch.randn(1, 4)
    p = logits.softmax(dim=1)[0]
    root = torch.stack([root_of_fisher(logits, row[None])[0] for row in torch.eye(4)], dim=1)
    torch.testing.assert_close(root @ root.t(), p.diag() - p[:, None] * p)


@pytest.mark.parametrize("network", [networks.convolutions, networks.forms, networks.transformer])
def test_probes_of_outputs_are_norms_of_gradients_of_each_sample(
    tmp_path: Path, network: networks.Network
) -> None:
    """A second method: autograd on the graph itself, one sample at a time."""
    model, example = network()
    traced = trace_model(model, example)
    task = TASKS["classification" if network is networks.convolutions else "causal_lm"]
    request = _request(traced, _data(dict(example), tmp_path), task=task)
    traces = HessianTrace(draws=1).traces(request)
    tied = {place for group in traced.graph.shared_weights for place in group}
    for sample in range(2):
        alone = {name: value[sample : sample + 1] for name, value in example.items()}
        outputs = task.outputs(traced.module(**alone), alone)
        signs = random_signs(outputs.detach(), seed=0, draw=0, places=[sample])
        along = (outputs * root_of_fisher(outputs.detach(), signs)).sum()
        mask = alone.get("attention_mask")
        count = 1.0 if task.name == "classification" else float(outputs.shape[1])
        count = count if mask is None else float(mask.sum())
        weights = [traced.weight(layer) for layer in traced.graph.names]
        slopes = torch.autograd.grad(along, weights, allow_unused=True)
        for place, slope in enumerate(slopes):
            if place not in tied:  # autograd cannot tell the uses of one weight apart
                assert slope is not None
                wanted = float(slope.square().sum()) / count
                assert traces.estimates[sample, place] == pytest.approx(wanted, rel=1e-3)


def test_attention_and_tied_weights_have_second_derivatives(tmp_path: Path) -> None:
    for network in (networks.transformer, networks.forms):
        model, example = network()
        traced = trace_model(model, example)
        data = _data(dict(example), tmp_path / network.__name__)
        traces = HessianTrace(draws=3, probes="weights").traces(
            _request(traced, data, task=TASKS["causal_lm"], pairs={})
        )
        assert np.isfinite(traces.estimates).all()
        assert (traces.mean != 0).all()


@pytest.mark.parametrize("probes", ["outputs", "weights"])
def test_scores_are_mean_curvature_times_squared_weight_error(
    tmp_path: Path, *, probes: Probes
) -> None:
    torch.manual_seed(4)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    samples = torch.randn(6, 4)
    traced = trace_model(model, {"input": samples[:2]})
    data = _data({"input": samples}, tmp_path)
    traces = HessianTrace(draws=8, probes=probes).traces(
        _request(traced, data, task=TASKS["classification"])
    )
    table = HessianTrace(draws=8, probes=probes).measure(
        traced, task=TASKS["classification"], data=data, formats=["w3"]
    )
    for row, layer in enumerate(traced.graph.names):
        weight = traced.weight(layer).detach()
        error = (fake_quantise_weight(weight, FORMATS["w3"].weight) - weight).square().sum()
        scale = float(error) / weight.numel()
        assert table.loss[row, 0] == pytest.approx(traces.mean[row] * scale, rel=1e-5)
        assert table.stderr[row, 0] == pytest.approx(traces.stderr[row] * scale, rel=1e-5)


def test_probes_are_kept_and_more_of_them_add_only_theirs(tmp_path: Path) -> None:
    torch.manual_seed(5)
    traced = trace_model(nn.Sequential(nn.Linear(3, 3)), {"input": torch.randn(2, 3)})
    data = _data({"input": torch.randn(6, 3)}, tmp_path / "data")
    request = _request(
        traced, data, task=TASKS["classification"], cache=Cache(folder=tmp_path / "cache")
    )
    few, more, again = (
        HessianTrace(draws=draws, probes="weights").traces(request) for draws in (2, 5, 5)
    )
    assert [each.products for each in (few, more, again)] == [4, 6, 0]
    np.testing.assert_array_equal(few.estimates, more.estimates[:2])
    np.testing.assert_array_equal(again.estimates, more.estimates)


@pytest.mark.parametrize(
    "labels",
    [torch.tensor([0, 1, 2, 3]), torch.tensor([[0], [1], [2], [0]]), torch.rand(4)],
    ids=["beyond the classes", "another shape", "no whole numbers"],
)
def test_labels_that_do_not_fit_are_refused(tmp_path: Path, *, labels: Tensor) -> None:
    traced = trace_model(nn.Sequential(nn.Linear(3, 3)), {"input": torch.randn(2, 3)})
    data = _data({"input": torch.randn(4, 3), "label": labels}, tmp_path)
    with pytest.raises(DataError, match=r"labels have the shape.*from 0 to 2"):
        HessianTrace(probes="weights").traces(_request(traced, data, task=TASKS["classification"]))


def test_a_loss_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    layer = nn.Linear(3, 3)
    nn.init.constant_(layer.weight, 3e38)
    traced = trace_model(nn.Sequential(layer), {"input": torch.zeros(2, 3)})
    data = _data({"input": torch.ones(4, 3)}, tmp_path)
    with pytest.raises(MeasurementError, match="loss is NaN or infinite for"):
        HessianTrace(probes="weights").traces(_request(traced, data, task=TASKS["classification"]))


def test_outputs_without_gradient_and_no_draws_are_refused(tmp_path: Path) -> None:
    traced = trace_model(nn.Sequential(nn.Linear(3, 3)), {"input": torch.randn(2, 3)})
    data = _data({"input": torch.randn(4, 3)}, tmp_path)
    with pytest.raises(MeasurementError, match="has no gradient"):
        HessianTrace(probes="weights").traces(
            _request(traced, data, task=CallableTask(function=_likeliest))
        )
    with pytest.raises(UsageError, match="0 draws"):
        HessianTrace(draws=0, probes="weights").traces(
            _request(traced, data, task=TASKS["classification"])
        )


def _likeliest(raw: Tensor, batch: Batch) -> Tensor:  # noqa: ARG001 - a task's callable
    return raw.argmax(dim=1, keepdim=True)
