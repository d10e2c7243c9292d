"""Searched plans scored on test data by a referee that shares no code with the search."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Final

from benchmarks.bar import Bar, Target, judged
from benchmarks.sensitivity.plans import Written, single_metric_plans, write_plan
from benchmarks.sensitivity.targets import (
    AGAINST_SINGLE_METRICS,
    DIVERGENCES,
    FIVE_PASSES,
    ONE_PASS,
    SEEDS,
    TARGETS,
    unit_of,
)
from benchmarks.zoo.case import ZooCase
from benchmarks.zoo.minilm import minilm
from benchmarks.zoo.place import is_present, referee_scores
from benchmarks.zoo.resnet import cifar_resnet
from benchmarks.zoo.stories import stories

# Every plan is a line here before the referee sees it.
_JOURNAL: Final = Path("bench-output") / "sensitivity" / "plans.jsonl"
_SMALL_SAMPLES: Final = 96
_SMALL_BUDGET: Final = 3.5


def bars(*, small: bool) -> Iterator[Bar]:
    """Search, write all plans of a model down, then have each scored on test data once."""
    if not is_present():
        names = sorted({*DIVERGENCES, *AGAINST_SINGLE_METRICS})
        print(
            f"The zoo and its referee are not beside this checkout: {', '.join(names)} are "
            "SKIPPED. The bar of a small random network was measured instead.",
            file=sys.stderr,
        )
        return
    with TemporaryDirectory() as folder:
        place = Path(folder)
        if small:
            yield from _small(place)
            return
        for name, efforts in DIVERGENCES.items():
            yield from _of_model(_case(name, place), efforts=efforts, folder=place)
        for name, budgets in AGAINST_SINGLE_METRICS.items():
            yield from _against_metrics(_case(name, place), budgets=budgets, folder=place)


def _case(name: str, folder: Path) -> ZooCase:
    makers: dict[str, Callable[[], ZooCase]] = {
        "stories260k": stories,
        "minilm_l6_v2": partial(minilm, folder / "minilm"),
    }
    return makers.get(name, partial(cifar_resnet, name))()


def _small(folder: Path) -> Iterator[Bar]:
    """One seed, one budget and few images: shows that the way is open, reaches no figure."""
    case = cifar_resnet("cifar10_resnet20")
    written = _written(
        case, seed=0, budget=_SMALL_BUDGET, effort=ONE_PASS, folder=folder, samples=_SMALL_SAMPLES
    )
    yield _scored(case.name, [written], target=Target(unit=unit_of(case.name)), small=True)


def _of_model(
    case: ZooCase, *, efforts: Mapping[float, Mapping[float, float]], folder: Path
) -> Iterator[Bar]:
    settled = {
        (effort, budget): [
            _written(case, seed=seed, budget=budget, effort=effort, folder=folder, samples=None)
            for seed in SEEDS
        ]
        for effort, targets in efforts.items()
        for budget in targets
    }
    for (effort, budget), plans in settled.items():
        target = Target(unit=unit_of(case.name), at_most=efforts[effort][budget])
        yield _scored(case.name, plans, target=target, small=False)


def _against_metrics(case: ZooCase, *, budgets: Sequence[float], folder: Path) -> Iterator[Bar]:
    for budget in budgets:
        settled, rivals = [], []
        for seed in SEEDS:
            plan = partial(write_plan, case, seed=seed, budget=budget, cache=folder / "cache")
            settled.append(_noted(plan(effort=FIVE_PASSES, samples=None)))
            rivals.append(
                single_metric_plans(case, seed=seed, budget=budget, cache=folder / "cache")
            )
        ours = median(_divergence(case.name, plan.bits) for plan in settled)
        theirs = {
            name: median(_divergence(case.name, plans[name]) for plans in rivals)
            for name in rivals[0]
        }
        yield judged(
            f"{case.name} at {budget} bits: above the best single metric",
            [100 * (ours / min(theirs.values()) - 1)],
            target=TARGETS["above the best single metric"],
            extra={"searched": ours, "single metrics": theirs, "seeds": len(SEEDS)},
        )


def _written(
    case: ZooCase, *, seed: int, budget: float, effort: float, folder: Path, samples: int | None
) -> Written:
    # Efforts have caches of their own: neither pays for the other.
    cache = folder / f"cache-{effort:g}-{seed}"
    return _noted(
        write_plan(case, seed=seed, budget=budget, effort=effort, cache=cache, samples=samples)
    )


def _noted(written: Written) -> Written:
    _JOURNAL.parent.mkdir(parents=True, exist_ok=True)
    with _JOURNAL.open("a", encoding="utf-8") as journal:
        journal.write(json.dumps(asdict(written)) + "\n")
    return written


def _scored(model: str, plans: Sequence[Written], *, target: Target, small: bool) -> Bar:
    found = [_divergence(model, plan.bits) for plan in plans]
    extra: dict[str, Any] = {
        "range": [min(found), max(found)],
        "seeds": [plan.seed for plan in plans],
        "forwards": [plan.forwards for plan in plans],
        "seconds": [plan.seconds for plan in plans],
        "origins": [plan.origin for plan in plans],
    }
    of = "small form, " if small else "median of seeds, "
    name = f"{model} at {plans[0].budget} bits, {of}effort {plans[0].effort:g}"
    return judged(name, [median(found)], target=target, extra=extra)


def _divergence(model: str, bits: Mapping[str, int]) -> float:
    return float(referee_scores(model, bits)["kl"])
