"""Speed at no loss: the fastest plan that holds a bound, timed in the same rounds as rivals."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, final

import numpy as np

from benchmarks.bar import Bar, judged
from benchmarks.cost.leanest import Leanest
from benchmarks.cost.rivals import Rival, nncf_int8, plain
from benchmarks.cost.subjects import Subject
from benchmarks.cost.targets import DROP, FASTER, NEVER_SLOWER, SPEED, TARGETS
from mpsearch.cost import time_together
from mpsearch.cost.timing import Timeable, Timings
from mpsearch.tracing import base_onnx

_SECONDS_EACH: Final = 3.0
_RELATIVE_ERROR: Final = 0.003
_CLEARLY: Final = 1.05


@final
@dataclass(frozen=True, kw_only=True)
class Race:
    """Milliseconds of our plan and of each rival, from the same rounds, and what each loses."""

    ours: float
    drop: float
    rivals: dict[str, dict[str, float]]
    repeatability: float

    @property
    def ratio(self) -> float:
        """Return how many times faster than the best rival our plan is."""
        return min(each["ms"] for each in self.rivals.values()) / self.ours


@final
class Rivals:
    """What others make of each model, made once."""

    def __init__(self) -> None:
        self._made: dict[str, list[Rival]] = {}

    def of(self, subject: Subject) -> list[Rival]:
        """Return OpenVINO's bfloat16 and NNCF's 8 bits."""
        if subject.name not in self._made:
            base = base_onnx(subject.traced())
            self._made[subject.name] = [plain(base, hint="bf16"), *nncf_int8(base, subject)]
        return self._made[subject.name]


def timed(ours: Timeable, rivals: Sequence[Rival], *, leanest: Leanest) -> Timings:
    """Time our plan and then the rivals, at the batch of the request."""
    shapes = leanest.request.subject.workload(leanest.request.samples)
    entrants = [ours, *(rival.timeable(shapes=shapes) for rival in rivals)]
    return time_together(
        entrants,
        relative_error=_RELATIVE_ERROR,
        time_limit_seconds=_SECONDS_EACH * len(entrants),
        generator=np.random.default_rng(0),
    )


def race(leanest: Leanest, *, bound: float, rivals: Sequence[Rival]) -> Race:
    """Race the leanest plan within a bound against the rivals of its model."""
    winner = leanest.within(bound).winner
    deployment = winner.entry.deployment
    assert deployment is not None
    assert deployment.executable is not None
    timings = timed(deployment.executable, rivals, leanest=leanest)
    ours, *others = (timings.seconds * 1e3).tolist()
    full, subject = leanest.full_score("test"), leanest.request.subject
    return Race(
        ours=ours,
        drop=leanest.drop(winner, part="test"),
        rivals={
            rival.name: {
                "ms": ms,
                "drop": full - subject.score(rival.forward(), subject.parts["test"]),
            }
            for rival, ms in zip(rivals, others, strict=True)
        },
        repeatability=timings.repeatability,
    )


def bars(wanted: Sequence[tuple[Leanest, float]], *, rivals: Rivals) -> Iterator[Bar]:
    """Yield each race as soon as it is run, then those of all together."""
    ratios = []
    for leanest, bound in wanted:
        subject, samples = leanest.request.subject, leanest.request.samples
        found = race(leanest, bound=bound, rivals=rivals.of(subject))
        name = f"{SPEED}, {subject.name} b{samples}"
        yield judged(name, [found.ratio], target=TARGETS[SPEED], extra=facts(found, leanest))
        drop = f"{DROP}, {subject.name} at no loss"
        yield judged(f"{drop} b{samples}", [found.drop], target=TARGETS[drop])
        ratios.append(found.ratio)
    yield judged(NEVER_SLOWER, ratios, target=TARGETS[NEVER_SLOWER], statistic="min")
    clearly = float(sum(ratio >= _CLEARLY for ratio in ratios))
    yield judged(FASTER, [clearly], target=TARGETS[FASTER], extra={"races": len(ratios)})


def facts(found: Race, leanest: Leanest) -> dict[str, object]:
    """Return what a reader needs to judge a race."""
    return {
        "ms": found.ours,
        "rivals": found.rivals,
        "repeatability": found.repeatability,
        "full_precision": leanest.full_score("test"),
        "steps": leanest.tried(),
    }
