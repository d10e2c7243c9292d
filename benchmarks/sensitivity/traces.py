"""Traces of all layers from one pass against one Hessian-vector product per layer.

N probes cost N backward passes or N products for all layers at once, and N x L products layer
by layer, so at the same N the first take 1/L of the work.
"""

import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, final

import numpy as np
from jaxtyping import Float64
from numpy import ndarray
from scipy.stats import t as student

from benchmarks.bar import Bar, judged
from benchmarks.sensitivity.subject import ready, request_of
from benchmarks.sensitivity.targets import TARGETS
from benchmarks.zoo.anywhere import case_named
from benchmarks.zoo.case import ZooCase
from benchmarks.zoo.minilm import minilm
from benchmarks.zoo.place import is_present
from mpsearch.sensitivity import HessianTrace
from mpsearch.sensitivity.hessian_trace import Probes
from mpsearch.workflow.prepare import Prepared

# Samples, and probes of the published way, which costs L times as much as the others.
_MODEL: Final = "cifar10_resnet20"
_FULL: Final = (16, 12)
_SMALL: Final = (2, 3)
_TRANSFORMER: Final = (8, 12)
# What is compared with the published way, by what the probes are drawn on.
_BARS: Final[Mapping[Probes, str]] = {
    "outputs": "standard error of all-layer traces",
    "weights": "standard error of all-layer products",
}
_SAME: Final = "largest difference of traces"
_MORE: Final = 4  # times as many probes where they are cheap
_RISK: Final = 1e-3  # of a false alarm over all layers together


@final
@dataclass(frozen=True, kw_only=True)
class _Estimates:
    """One estimate of each layer's trace per probe, and what a probe took."""

    each: Float64[ndarray, "N L"]
    seconds: float

    @property
    def deviation(self) -> Float64[ndarray, " L"]:
        found: ndarray = self.each.std(axis=0, ddof=1)
        return found

    @property
    def variance(self) -> Float64[ndarray, " L"]:
        """Return the squared standard error of the mean."""
        return self.deviation**2 / len(self.each)


def bars(*, small: bool) -> Iterator[Bar]:
    """Compare deviations of single probes on the same data, layer by layer.

    The small form leaves out the transformer: a product for each of its layers takes minutes.
    """
    yield from _compared(case_named(_MODEL), size=_SMALL if small else _FULL)
    if small:
        return
    if not is_present():
        print("The zoo is not beside this checkout: MiniLM's traces are SKIPPED.", file=sys.stderr)
        return
    with TemporaryDirectory() as folder:
        yield from _compared(minilm(Path(folder)), size=_TRANSFORMER)


def _compared(case: ZooCase, *, size: tuple[int, int]) -> Iterator[Bar]:
    samples, probes = size
    with ready(case, samples=samples) as prepared:
        layers = _estimates(prepared, probes="layers", count=probes)
        for kind, bar in _BARS.items():
            others = _estimates(prepared, probes=kind, count=_MORE * probes)
            yield _deviations(f"{case.name}: {bar}", bar=bar, others=others, layers=layers)
            yield judged(
                f"{case.name}: {_SAME}, probes of {kind}",
                [_difference(others, layers)],
                target=TARGETS[_SAME],
                extra={
                    "all": others.each.mean(0).tolist(),
                    "layers": layers.each.mean(0).tolist(),
                },
            )


def _deviations(name: str, *, bar: str, others: _Estimates, layers: _Estimates) -> Bar:
    ratios = others.deviation / layers.deviation
    return judged(
        f"{name}, median of layers",
        [float(np.median(ratios))],
        target=TARGETS[bar],
        extra={
            "layers": ratios.tolist(),
            "probes": [len(others.each), len(layers.each)],
            "seconds per probe": [others.seconds, layers.seconds],
        },
    )


def _difference(others: _Estimates, layers: _Estimates) -> float:
    """Return the largest difference in means over what chance explains, all layers together."""
    together = np.sqrt(others.variance + layers.variance)
    freedom = len(layers.each) - 1
    bound = student.ppf(1 - _RISK / 2 / layers.each.shape[1], freedom)
    return float(np.abs((others.each.mean(0) - layers.each.mean(0)) / together).max() / bound)


def _estimates(prepared: Prepared, *, probes: Probes, count: int) -> _Estimates:
    """Return estimates that share nothing but the data: each probe has a seed of its own."""
    start = time.process_time()
    found = []
    for seed in range(count):
        request = request_of(
            prepared.traced, task=prepared.task, data=prepared.calibration, seed=seed
        )
        found.append(HessianTrace(draws=1, probes=probes).traces(request).mean)
    return _Estimates(each=np.stack(found), seconds=(time.process_time() - start) / count)
