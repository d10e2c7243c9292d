"""Gradient metrics equal sample-by-sample autograd on the module itself, and closed forms."""

import math
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mpsearch.core.formats import FORMATS
from mpsearch.core.graph import Op
from mpsearch.core.tables import SensitivityTable
from mpsearch.quant.fake_torch import fake_quantise_weight
from mpsearch.sensitivity import AbstractMetric, FisherDirection, OutputProbe
from mpsearch.sensitivity.draws import random_classes, random_normals, random_signs
from mpsearch.tasks import TASKS, AbstractTask, Batch, CallableTask, Dataset, read_data
from mpsearch.testing import networks
from mpsearch.tracing import TracedModel, trace_model

# Float32 sums of a few hundred products, in another order.
CLOSE = 2e-3
FORMATS_USED = ("w4", "w3", "w2")
DRAWS = 2


class Frames(nn.Module):
    """Samples in every place: token-major rows, frames, strides, dilation, one shared row."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, stride=2, padding=(1, 2), dilation=(1, 2))
        self.flat = nn.Conv1d(4, 6, 4, padding="same", groups=2)
        self.places = nn.Embedding(5, 6)
        self.rows = nn.Linear(6, 6)
        self.shared = nn.Linear(6, 6, bias=False)
        self.head = nn.Linear(6, 3)
        self.register_buffer("order", torch.arange(5)[None])

    def forward(self, video: Tensor) -> Tensor:
        """Run the network on (samples, frames, 2, 8, 8)."""
        samples, frames = video.shape[:2]
        x = torch.tanh(self.conv(video.flatten(0, 1))).mean(3)
        x = torch.tanh(self.flat(x)).mean(2).reshape(samples, frames, 6)
        x = x + self.shared(self.places(self.order))
        rows = x.transpose(0, 1).reshape(frames * samples, 6)
        x = torch.tanh(self.rows(rows)).reshape(frames, samples, 6).transpose(0, 1)
        result = self.head(x).mean(1)
        assert isinstance(result, Tensor)
        return result


def frames() -> tuple[nn.Module, dict[str, Tensor]]:
    torch.manual_seed(4)
    return Frames(), {"video": torch.randn(2, 5, 2, 8, 8)}


def _means(raw: Tensor, batch: Batch) -> Tensor:  # noqa: ARG001 - a task's callable
    return raw.mean((2, 3))


CASES: dict[str, tuple[networks.Network, AbstractTask]] = {
    "forms": (networks.forms, TASKS["causal_lm"]),
    "convolutions": (networks.convolutions, TASKS["classification"]),
    "transformer": (networks.transformer, TASKS["causal_lm"]),
    "frames": (frames, TASKS["classification"]),
    "upscaling": (networks.upscaling, CallableTask(function=_means)),
    "sentences": (networks.transformer, TASKS["embedding"]),
}


def _batch(example: dict[str, Tensor], *, samples: int = 4) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(11)
    batch = {}
    for name, value in example.items():
        shape = (samples, *value.shape[1:])
        if value.is_floating_point():
            batch[name] = torch.randn(shape, generator=generator)
        elif name.endswith("mask"):
            lengths = torch.tensor([6, 4, 5, 2])[:samples, None]
            batch[name] = (torch.arange(shape[1])[None] < lengths).long()
        else:
            batch[name] = torch.randint(0, int(value.max()) + 1, shape, generator=generator)
    return batch


def _data(batch: dict[str, Tensor], folder: Path, *, size: int = 3) -> Dataset:
    samples = len(next(iter(batch.values())))
    cuts = [slice(at, at + size) for at in range(0, samples, size)]
    return read_data(
        [{name: value[cut] for name, value in batch.items()} for cut in cuts],
        input_names=tuple(batch),
        batch_size=size,
        folder=folder,
    )


def _task(name: str, task: AbstractTask) -> AbstractTask:
    # The transformer's logits would be taken for the embedding.
    return CallableTask(function=_pooled) if name == "sentences" else task


def _pooled(raw: dict[str, Tensor], batch: Batch) -> Tensor:
    return TASKS["embedding"].outputs(raw["hidden"], batch)


def _slopes(
    model: nn.Module,
    traced: TracedModel,
    *,
    batch: dict[str, Tensor],
    task: AbstractTask,
    direction: Callable[[Tensor, Batch, int], Tensor],
) -> dict[str, list[Tensor]]:
    """Return the gradient of direction x output at each weight, sample by sample."""
    weights = {layer: _parameter(model, traced.weights[layer]) for layer in traced.graph.names}
    slopes: dict[str, list[Tensor]] = {layer: [] for layer in weights}
    for place in range(len(next(iter(batch.values())))):
        alone = {name: value[place : place + 1] for name, value in batch.items()}
        outputs = task.outputs(model(**alone), alone)
        scalar = (outputs * direction(outputs.detach(), alone, place)).sum()
        found = torch.autograd.grad(scalar, list(weights.values()), allow_unused=True)
        for layer, slope in zip(weights, found, strict=True):
            slopes[layer].append(torch.zeros(()) if slope is None else slope)
    return slopes


def _parameter(model: nn.Module, path: str) -> Tensor:
    return dict(model.named_parameters(remove_duplicate=False))[path]


def _groups(traced: TracedModel) -> list[list[int]]:
    """Return layers by weight: autograd cannot tell the uses of one weight apart."""
    tied = [list(group) for group in traced.graph.shared_weights]
    alone = set(range(len(traced.graph.layers))) - {each for group in tied for each in group}
    return [*tied, *[[each] for each in sorted(alone)]]


def _change(traced: TracedModel, layer: str, name: str) -> Tensor:
    """Return what the format adds to the weight as it stands in the model."""
    weight = traced.weight(layer).detach()
    if traced.graph.layers[traced.graph.index(layer)].op is Op.CONV_TRANSPOSE:
        parts = weight.chunk({"grouped": 4, "depthwise": 32}.get(layer, 1))
        firsts = [part.transpose(0, 1) for part in parts]
        changes = [fake_quantise_weight(each, FORMATS[name].weight) - each for each in firsts]
        return torch.cat([change.transpose(0, 1) for change in changes])
    turned = tuple(weight.shape) != traced.graph.layers[traced.graph.index(layer)].weight_shape
    rows = weight.t() if turned else weight
    change = fake_quantise_weight(rows, FORMATS[name].weight) - rows
    return change.t() if rows is not weight else change


@cache
def _traced(name: str) -> tuple[nn.Module, TracedModel, dict[str, Tensor]]:
    model, example = CASES[name][0]()
    model.eval()
    traced = trace_model(model, example)
    # The module itself adds in place, through which autograd cannot look.
    return traced.module if name == "forms" else model, traced, _batch(example)


def _measured(
    name: str, folder: Path, *, metric: AbstractMetric, memory_limit_bytes: int | None = None
) -> tuple[nn.Module, TracedModel, dict[str, Tensor], AbstractTask, SensitivityTable]:
    model, traced, batch = _traced(name)
    task = _task(name, CASES[name][1])
    table = metric.measure(
        traced,
        task=task,
        data=_data(batch, folder),
        formats=FORMATS_USED,
        seed=5,
        memory_limit_bytes=memory_limit_bytes,
    )
    return model, traced, batch, task, table


def _positions(batch: Batch, *, task: AbstractTask) -> float:
    if task.name != "causal_lm":
        return 1.0
    return float(batch["attention_mask"].sum()) if "attention_mask" in batch else 5.0


@pytest.mark.parametrize("limit", [None, 1])
@pytest.mark.parametrize("name", CASES)
def test_probes_equal_gradients_of_each_sample_alone(
    name: str, tmp_path: Path, *, limit: int | None
) -> None:
    metric = OutputProbe(draws=DRAWS)
    model, traced, batch, task, table = _measured(
        name, tmp_path, metric=metric, memory_limit_bytes=limit
    )
    assert table.numbers is not None
    assert table.numbers.shape == (4 * DRAWS, len(table.layers), len(FORMATS_USED))
    numbers = table.numbers.reshape(4, DRAWS, len(table.layers), len(FORMATS_USED))
    for draw in range(DRAWS):

        def signs(outputs: Tensor, alone: Batch, place: int, draw: int = draw) -> Tensor:
            found = random_signs(outputs, seed=5, draw=draw, places=[place])
            return found / math.sqrt(_positions(alone, task=task))

        slopes = _slopes(model, traced, batch=batch, task=task, direction=signs)
        for group in _groups(traced):
            for column, form in enumerate(FORMATS_USED):
                layer = traced.graph.names[group[0]]
                wanted = [
                    float((slope * _change(traced, layer, form)).sum()) for slope in slopes[layer]
                ]
                found = numbers[:, draw, group, column].sum(axis=1)
                if not any(wanted):  # a layer that the output never sees has no numbers
                    assert np.isnan(found).all()
                    continue
                np.testing.assert_allclose(found, wanted, rtol=CLOSE, atol=1e-6)


@pytest.mark.parametrize("name", ["convolutions", "transformer", "sentences"])
def test_fisher_numbers_equal_gradients_of_log_probabilities(name: str, tmp_path: Path) -> None:
    model, traced, batch, task, table = _measured(name, tmp_path, metric=FisherDirection(draws=1))

    def slope(outputs: Tensor, alone: Batch, place: int) -> Tensor:
        scale = 1 / math.sqrt(2 * _positions(alone, task=task))
        if task.name == "callable":
            return random_normals(outputs, seed=5, draw=0, places=[place]) * scale
        drawn = random_classes(outputs, seed=5, draw=0, places=[place])
        variable = outputs.clone().requires_grad_()
        surprise = (variable.log_softmax(dim=-1) * drawn).sum()
        return torch.autograd.grad(surprise, variable)[0] * scale

    slopes = _slopes(model, traced, batch=batch, task=task, direction=slope)
    assert table.numbers is not None
    for row, layer in enumerate(traced.graph.names):
        for column, form in enumerate(FORMATS_USED):
            wanted = [float((each * _change(traced, layer, form)).sum()) for each in slopes[layer]]
            found = table.numbers[:, row, column]
            if any(wanted):
                np.testing.assert_allclose(found, wanted, rtol=CLOSE, atol=1e-6)
            else:
                assert np.isnan(found).all()


def test_losses_are_mean_squares_with_errors_over_samples(tmp_path: Path) -> None:
    *_, table = _measured("convolutions", tmp_path, metric=OutputProbe(draws=DRAWS))
    assert table.numbers is not None
    squares = table.numbers.astype(np.float64).reshape(4, DRAWS, -1, len(FORMATS_USED)) ** 2
    np.testing.assert_allclose(table.loss, squares.mean(axis=(0, 1)), rtol=1e-12)
    samples = squares.mean(axis=1)
    np.testing.assert_allclose(table.stderr, samples.std(axis=0, ddof=1) / 2, rtol=1e-12)
    assert table.samples == 4
