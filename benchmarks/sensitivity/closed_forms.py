"""Estimates against closed forms: within their stated errors, at a stated risk of a false alarm."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, TypeAlias, final, get_args

import numpy as np
import torch
from jaxtyping import Float64
from numpy import ndarray
from scipy.stats import t as student
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.bar import Bar, judged
from benchmarks.sensitivity.subject import request_of
from benchmarks.sensitivity.targets import TARGETS
from mpsearch.core.formats import FORMATS
from mpsearch.quant.fake_torch import fake_quantise_weight
from mpsearch.sensitivity import FisherDirection, HessianTrace, OutputProbe
from mpsearch.sensitivity.hessian_trace import Probes
from mpsearch.tasks import TASKS, AbstractTask, Batch, CallableTask, Dataset, read_data
from mpsearch.tracing import TracedModel, trace_model

_MISS: Final = "largest miss of a closed form"
_EXACT: Final = "error of a single probe that has no noise"
# Over all estimates of a bar together (Bonferroni).
_RISK: Final = 1e-3
_ROUNDING: Final = 1e-5
_USUAL: Final = 2.0  # standard errors, which one in twenty exceeds
_MODELS: Final = 8  # of each family, each with data of its own
_SEEDS: Final = 20
_DRAWS: Final = 200
# Seeds of probes of outputs, and draws of each.
_EACH: Final = 10
_SAMPLES: Final = 512
_INPUTS: Final = 6
_FORMAT: Final = "w2"


@final
@dataclass(frozen=True, kw_only=True)
class _Estimate:
    """A mean with its standard error out of N numbers, and the truth."""

    mean: float
    stderr: float
    count: int
    truth: float

    @property
    def distance(self) -> float:
        """Return how many standard errors the mean is off; single precision is none of it."""
        return abs(self.mean - self.truth) / max(self.stderr, _ROUNDING * abs(self.truth))


_Family: TypeAlias = Callable[[int, Path], Iterator[_Estimate]]


def bars(*, small: bool) -> Iterator[Bar]:
    """Draw models and data by seed, and compare every estimate with what it must be."""
    torch.manual_seed(0)
    with TemporaryDirectory() as folder:
        for number, (name, family) in enumerate(_FAMILIES.items()):
            found = [
                estimate
                for seed in range(1 if small else _MODELS)
                for estimate in family(seed, Path(folder) / f"{number}-{seed}")
            ]
            yield _missed(name, found)
        errors = list(_without_noise(Path(folder)))
        yield judged(_EXACT, errors, target=TARGETS[_EXACT], statistic="max")


def _missed(name: str, found: Sequence[_Estimate]) -> Bar:
    bounds = [student.ppf(1 - _RISK / 2 / len(found), each.count - 1) for each in found]
    return judged(
        f"{_MISS}, {name}",
        [max(each.distance / bound for each, bound in zip(found, bounds, strict=True))],
        target=TARGETS[_MISS],
        extra={
            "estimates": len(found),
            "risk": _RISK,
            "standard errors allowed": float(max(bounds)),
            "beyond two standard errors": np.mean([each.distance > _USUAL for each in found]),
        },
    )


def _linear(seed: int, folder: Path) -> Iterator[_Estimate]:
    """Half the squared error of a linear layer: outputs x mean |x|^2, whatever the targets."""
    layer, samples = _layer(seed, outputs=3), torch.randn(16, _INPUTS)
    data = _data({"input": samples, "label": torch.randn(16, 3)}, folder)
    truth = 3 * float(samples.square().sum(dim=1).mean())
    yield from _traces(layer, data, task=CallableTask(function=_same), truths=[truth])


def _logistic(seed: int, folder: Path) -> Iterator[_Estimate]:
    """Cross-entropy behind a linear layer: mean |x|^2 (1 - |p|^2)."""
    layer, samples = _layer(seed, outputs=4), torch.randn(16, _INPUTS)
    data = _data({"input": samples, "label": torch.randint(0, 4, (16,))}, folder)
    p = layer(samples).detach().softmax(dim=1)
    truth = float((samples.square().sum(dim=1) * (1 - p.square().sum(dim=1))).mean())
    yield from _traces(layer, data, task=TASKS["classification"], truths=[truth])


def _convolution(seed: int, folder: Path) -> Iterator[_Estimate]:
    """A convolution and a head: every second derivative of both weights, summed by autograd."""
    torch.manual_seed(seed)
    model, image = _SmallConvolution(), torch.randn(16, 2, 5, 5)
    labels = torch.randint(0, 3, (16,))
    truths = []
    for name in ("conv", "head"):
        weight = model.get_parameter(f"{name}.weight").detach()

        def loss(flat: Tensor, *, name: str = name, shape: torch.Size = weight.shape) -> Tensor:
            changed = {f"{name}.weight": flat.reshape(shape)}
            logits = torch.func.functional_call(model, changed, (image,))
            return functional.cross_entropy(logits, labels)

        hessian = torch.func.hessian(loss)(weight.flatten())
        truths.append(float(hessian.detach().diagonal().sum()))
    data = _data({"image": image, "label": labels}, folder)
    yield from _traces(model, data, task=TASKS["classification"], truths=truths)


def _population(seed: int, folder: Path) -> Iterator[_Estimate]:
    """Over all normal inputs the squared error is |dW|^2, the divergence half of that."""
    layer, samples = _layer(seed, outputs=5), torch.randn(_SAMPLES, _INPUTS)
    squared = float(_change(layer).square().sum())
    metrics = ((OutputProbe(draws=2), squared), (FisherDirection(draws=2), squared / 2))
    for metric, truth in metrics:
        table = metric.measure(
            trace_model(layer, {"input": samples[:2]}),
            task=CallableTask(function=_same),
            data=_data({"input": samples}, folder),
            formats=[_FORMAT],
            seed=seed,
        )
        mean, stderr = float(table.loss[0, 0]), float(table.stderr[0, 0])
        yield _Estimate(mean=mean, stderr=stderr, count=_SAMPLES, truth=truth)


def _traces(
    model: nn.Module, data: Dataset, *, task: AbstractTask, truths: Sequence[float]
) -> Iterator[_Estimate]:
    """Yield the estimates of each layer, by each kind of probe."""
    example = {name: value[:2] for name, value in next(iter(data)).items() if name != "label"}
    traced = trace_model(model, example)
    for probes in get_args(Probes):
        each = _drawn(traced, task=task, data=data, probes=probes)
        mean, stderr = each.mean(axis=0), each.std(axis=0, ddof=1) / len(each) ** 0.5
        for place, truth in enumerate(truths):
            yield _Estimate(
                mean=float(mean[place]), stderr=float(stderr[place]), count=len(each), truth=truth
            )


def _drawn(
    traced: TracedModel, *, task: AbstractTask, data: Dataset, probes: Probes
) -> Float64[ndarray, "N L"]:
    """Return one estimate per probe; those of outputs state errors over samples otherwise."""
    if probes != "outputs":
        request = request_of(traced, task=task, data=data)
        return HessianTrace(draws=_DRAWS, probes=probes).traces(request).estimates
    requests = (request_of(traced, task=task, data=data, seed=seed) for seed in range(_SEEDS))
    return np.stack([HessianTrace(draws=_EACH).traces(request).mean for request in requests])


def _without_noise(folder: Path) -> Iterator[float]:
    """Yield relative errors where a single probe must be exact."""
    layer, samples = _layer(0, outputs=1), torch.randn(16, _INPUTS)
    traced = trace_model(layer, {"input": samples[:2]})
    task = CallableTask(function=_same)
    # One output: the only random sign is squared away.
    table = OutputProbe(draws=1).measure(
        traced, task=task, data=_data({"input": samples}, folder / "one"), formats=[_FORMAT]
    )
    squared = float((samples @ _change(layer).t()).double().square().sum(dim=1).mean())
    yield abs(float(table.loss[0, 0]) / squared - 1)
    # One feature at a time: the Hessian of the weight is diagonal.
    rows = torch.eye(_INPUTS) * torch.arange(1, _INPUTS + 1)
    data = _data({"input": rows, "label": torch.zeros(_INPUTS, 1)}, folder / "diagonal")
    truth = float(rows.square().sum(dim=1).mean())
    for probes in get_args(Probes):
        request = request_of(traced, task=task, data=data)
        found = HessianTrace(draws=1, probes=probes).traces(request).mean
        yield abs(float(found[0]) / truth - 1)


def _layer(seed: int, *, outputs: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(_INPUTS, outputs))


def _change(model: nn.Sequential) -> Tensor:
    weight = model.get_parameter("0.weight").detach()
    return fake_quantise_weight(weight, FORMATS[_FORMAT].weight) - weight


def _data(batch: Mapping[str, Tensor], folder: Path) -> Dataset:
    names = tuple(name for name in batch if name != "label")
    size = len(batch[names[0]])
    return read_data([dict(batch)], input_names=names, batch_size=size, folder=folder)


def _same(raw: Tensor, batch: Batch) -> Tensor:  # noqa: ARG001 - a task's callable
    return raw


class _SmallConvolution(nn.Module):
    """Convolution, curve, mean, logits."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3)
        self.head = nn.Linear(3, 3)

    def forward(self, image: Tensor) -> Tensor:
        hidden = torch.relu(self.conv(image)).mean((2, 3))
        result: Tensor = self.head(hidden)
        return result


_FAMILIES: Final[Mapping[str, _Family]] = {
    "traces of linear models": _linear,
    "traces of logistic models": _logistic,
    "traces of small convolutional models": _convolution,
    "probes over normal inputs": _population,
}
