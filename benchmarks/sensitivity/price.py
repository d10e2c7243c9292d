"""What one draw of the probes costs beside Model-Optimizer's score, in one process."""

import time
from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Final

from benchmarks.bar import Bar, judged
from benchmarks.sensitivity.plans import FORMATS
from benchmarks.sensitivity.subject import ready
from benchmarks.sensitivity.targets import TARGETS
from benchmarks.zoo.anywhere import case_named
from mpsearch.sensitivity import (
    AbstractMetric,
    FisherDirection,
    GradientOutputError,
    OutputProbe,
    Work,
)
from mpsearch.workflow.prepare import Prepared

_RIVAL: Final = "gradient_output_error"
_METRICS: Final[Mapping[str, AbstractMetric]] = {
    _RIVAL: GradientOutputError(),
    "fisher_direction": FisherDirection(draws=1),
    "output_probe": OutputProbe(draws=1),
}
_BAR: Final = "processor time of one draw"
# Images, documents; the small form measures a few of the first.
_SAMPLES: Final[Mapping[str, int]] = {"cifar10_resnet20": 256, "stories260k": 64}
_SMALL: Final = 32
_ROUNDS: Final = 5


def bars(*, small: bool) -> Iterator[Bar]:
    """Measure all three in turn, round after round, and compare within each round."""
    for name, whole in list(_SAMPLES.items())[: 1 if small else None]:
        case, samples = case_named(name), _SMALL if small else whole
        with ready(case, samples=samples) as prepared:
            seconds, work = _rounds(prepared, count=2 if small else _ROUNDS)
        for metric in _METRICS:
            if metric != _RIVAL:
                pairs = zip(seconds[metric], seconds[_RIVAL], strict=True)
                ratios = [ours / theirs for ours, theirs in pairs]
                yield judged(
                    f"{case.name}: {_BAR} of {metric}",
                    [median(ratios)],
                    target=TARGETS[_BAR],
                    extra={
                        "rounds": ratios,
                        "samples": samples,
                        "macs": work[metric].macs / work[_RIVAL].macs,
                        "seconds": median(seconds[metric]),
                    },
                )


def _rounds(prepared: Prepared, *, count: int) -> tuple[dict[str, list[float]], dict[str, Work]]:
    """Return processor seconds by metric and round, and the work; each round in another order."""
    seconds: dict[str, list[float]] = {name: [] for name in _METRICS}
    work: dict[str, Work] = {}
    for place in range(count):
        for name in _turned(tuple(_METRICS), by=place):
            found: list[Work] = []
            start = time.process_time()
            _METRICS[name].measure(
                prepared.traced,
                task=prepared.task,
                data=prepared.calibration,
                formats=FORMATS,
                report=found.append,
            )
            seconds[name].append(time.process_time() - start)
            work[name] = found[0]
    return seconds, work


def _turned(names: Sequence[str], *, by: int) -> tuple[str, ...]:
    split = by % len(names)
    return (*names[split:], *names[:split])
