"""Searched plans scored on test data by a referee that shares no code with the search."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Final

from benchmarks.bar import Bar, Target, judged
from benchmarks.sensitivity.journal import Journal
from benchmarks.sensitivity.plans import (
    SINGLE_METRICS,
    Written,
    single_metric_plan,
    write_plan,
)
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

_JOURNAL: Final = Path("bench-output") / "sensitivity" / "plans.jsonl"
_SMALL_SAMPLES: Final = 30
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
        journal = Journal(_JOURNAL)
        for name, efforts in DIVERGENCES.items():
            case = _case(name, place)
            yield from _of_model(case, efforts=efforts, journal=journal, folder=place)
        for name, budgets in AGAINST_SINGLE_METRICS.items():
            case = _case(name, place)
            yield from _against_metrics(case, budgets=budgets, journal=journal, folder=place)


def _case(name: str, folder: Path) -> ZooCase:
    makers: dict[str, Callable[[], ZooCase]] = {
        "stories260k": stories,
        "minilm_l6_v2": partial(minilm, folder / "minilm"),
    }
    return makers.get(name, partial(cifar_resnet, name))()


def _small(folder: Path) -> Iterator[Bar]:
    """One seed, one budget and few images: shows that the way is open, reaches no figure."""
    case = cifar_resnet("cifar10_resnet20")
    written = write_plan(
        case,
        seed=0,
        budget=_SMALL_BUDGET,
        effort=ONE_PASS,
        cache=folder / "cache",
        samples=_SMALL_SAMPLES,
    )
    found = [_divergence(case.name, written.bits)]
    yield _scored([written], found=found, target=Target(unit=unit_of(case.name)), small=True)


def _of_model(
    case: ZooCase, *, efforts: Mapping[float, Mapping[float, float]], journal: Journal, folder: Path
) -> Iterator[Bar]:
    settled = {
        (effort, budget): searched_plans(
            case, budget=budget, effort=effort, journal=journal, folder=folder
        )
        for effort, targets in efforts.items()
        for budget in targets
    }
    for (effort, budget), plans in settled.items():
        target = Target(unit=unit_of(case.name), at_most=efforts[effort][budget])
        found = [journal.scored(case.name, plan.bits, referee=_divergence) for plan in plans]
        yield _scored(plans, found=found, target=target, small=False)


def _against_metrics(
    case: ZooCase, *, budgets: Sequence[float], journal: Journal, folder: Path
) -> Iterator[Bar]:
    for budget in budgets:
        searched = searched_plans(
            case, budget=budget, effort=FIVE_PASSES, journal=journal, folder=folder
        )
        rivals = {
            metric: [
                journal.written(
                    partial(
                        single_metric_plan,
                        case,
                        metric=metric,
                        seed=seed,
                        budget=budget,
                        cache=folder / f"cache-{case.name}-single-{seed}",
                    ),
                    model=case.name,
                    seed=seed,
                    budget=budget,
                    metric=metric,
                )
                for seed in SEEDS
            ]
            for metric in SINGLE_METRICS
        }
        score = partial(journal.scored, case.name, referee=_divergence)
        ours = median(score(plan.bits) for plan in searched)
        theirs = {
            metric: median(score(plan.bits) for plan in plans) for metric, plans in rivals.items()
        }
        yield judged(
            f"{case.name} at {budget} bits: above the best single metric",
            [100 * (ours / min(theirs.values()) - 1)],
            target=TARGETS["above the best single metric"],
            extra={"searched": ours, "single metrics": theirs, "seeds": len(SEEDS)},
        )


def searched_plans(
    case: ZooCase, *, budget: float, effort: float, journal: Journal, folder: Path
) -> list[Written]:
    """Return the plan of each seed; efforts have caches of their own, neither pays for another."""
    return [
        journal.written(
            partial(
                write_plan,
                case,
                seed=seed,
                budget=budget,
                effort=effort,
                cache=folder / f"cache-{case.name}-{effort:g}-{seed}",
                samples=None,
            ),
            model=case.name,
            seed=seed,
            budget=budget,
            effort=effort,
        )
        for seed in SEEDS
    ]


def _scored(
    plans: Sequence[Written], *, found: Sequence[float], target: Target, small: bool
) -> Bar:
    extra: dict[str, Any] = {
        "range": [min(found), max(found)],
        "seeds": [plan.seed for plan in plans],
        "forwards": [plan.forwards for plan in plans],
        "seconds": [plan.seconds for plan in plans],
        "origins": [plan.origin for plan in plans],
    }
    of = "small form, " if small else "median of seeds, "
    name = f"{plans[0].model} at {plans[0].budget} bits, {of}effort {plans[0].effort:g}"
    return judged(name, [median(found)], target=target, extra=extra)


def _divergence(model: str, bits: Mapping[str, int]) -> float:
    return float(referee_scores(model, bits)["kl"])
