"""Plans found from calibration data alone: seeds, budgets and efforts in, bits per layer out."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

import torch
from torch import nn

import mpsearch
from benchmarks.zoo.case import Batches, ZooCase
from mpsearch.workflow.solve import solve_tables

FORMATS: Final = ("w2", "w3", "w4", "w5", "w6", "w8")
SINGLE_METRICS: Final = ("weight_error", "output_error", "output_probe", "fisher_direction")
# Of ten samples these decide between plans; the order of the source may be by length.
_VALIDATES: Final = (2, 5, 8)
_FULL_BITS: Final = 32


@final
@dataclass(frozen=True, kw_only=True)
class Written:
    """A plan that is settled, with what it cost: forwards over the scored samples, seconds."""

    model: str
    seed: int
    budget: float
    effort: float
    bits: Mapping[str, int]
    origin: str
    forwards: float
    seconds: float
    pass_seconds: float
    notes: tuple[str, ...]


def write_plan(
    case: ZooCase, *, seed: int, budget: float, effort: float, cache: Path, samples: int | None
) -> Written:
    """Search under a budget of mean bits over the layers that are not fixed.

    All data is the calibration part of the seed: seven of ten samples score, three verify.

    Args:
        case: A real model.
        seed: Of the calibration data and of everything random.
        budget: Mean bits per weight.
        effort: In exact passes.
        cache: Folder of measured values.
        samples: How many samples to use, None for all.
    """
    scored, verified = split_rows(case.parts(seed).calibration, samples=samples)
    start = time.monotonic()
    result = mpsearch.search(
        case.model,
        scored,
        budgets={"weight_bits": mean_bits(case, budget=budget)},
        task=case.task,
        validation=verified,
        formats=FORMATS,
        fixed=dict.fromkeys(case.fixed, "fp32"),
        runtime="simulation",
        seed=seed,
        cache=cache,
        effort=effort,
    )
    return Written(
        model=case.name,
        seed=seed,
        budget=budget,
        effort=effort,
        bits=_bits(result.plan.assignment, case=case),
        origin=result.plan.origin,
        forwards=result.trace[-1].forwards if result.trace else 0.0,
        seconds=time.monotonic() - start,
        pass_seconds=result.phases.get("measure sensitivity", 0.0),
        notes=result.notes,
    )


def single_metric_plan(
    case: ZooCase, *, metric: str, seed: int, budget: float, cache: Path
) -> Written:
    """Return the optimum of one metric alone, from all data of the seed."""
    start = time.monotonic()
    measured = mpsearch.measure(
        case.model,
        case.parts(seed).calibration,
        task=case.task,
        formats=FORMATS,
        runtime="simulation",
        seed=seed,
        cache=cache,
        metric=metric,
    )
    found = solve_tables(
        measured.sensitivity,
        measured.costs,
        budgets={"weight_bits": mean_bits(case, budget=budget)},
        fixed=dict.fromkeys(case.fixed, "fp32"),
    )
    return Written(
        model=case.name,
        seed=seed,
        budget=budget,
        effort=0.0,
        bits=_bits(found.plan.assignment, case=case),
        origin=metric,
        forwards=0.0,
        seconds=time.monotonic() - start,
        pass_seconds=0.0,
        notes=(),
    )


def mean_bits(case: ZooCase, *, budget: float) -> str:
    """Return the budget over all weights, those that are fixed at full precision included."""
    module = case.model if isinstance(case.model, nn.Module) else case.model.module
    counts = {
        name: part.weight.numel()
        for name, part in module.named_modules()
        if isinstance(part, nn.Linear | nn.Conv2d | nn.Embedding)
    }
    fixed = sum(counts[name] for name in counts if _is_fixed(name, case=case))
    free = sum(counts.values()) - fixed
    # Half a bit of one weight, so that rounding to text cannot lose a whole one.
    return repr((budget * free + _FULL_BITS * fixed + 0.5) / (free + fixed))


def split_rows(batches: Batches, *, samples: int | None) -> tuple[Batches, Batches]:
    """Return seven of ten samples and the other three, spread evenly over the source."""
    scored: list[Mapping[str, torch.Tensor]] = []
    verified: list[Mapping[str, torch.Tensor]] = []
    seen = 0
    for batch in batches:
        size = len(next(iter(batch.values())))
        if samples is not None:
            size = min(size, samples - seen)
        places = torch.arange(seen, seen + size)
        held = torch.isin(places % 10, torch.tensor(_VALIDATES))
        for kept, part in ((~held, scored), (held, verified)):
            rows = places[kept] - seen
            if len(rows):
                part.append({name: value[rows] for name, value in batch.items()})
        seen += size
        if seen == samples:
            break
    return scored, verified


def _bits(assignment: Mapping[str, str], *, case: ZooCase) -> dict[str, int]:
    return {
        layer: int(name.removeprefix("w"))
        for layer, name in assignment.items()
        if layer not in case.fixed
    }


def _is_fixed(name: str, *, case: ZooCase) -> bool:
    return any(name == fixed or name.endswith(f".{fixed}") for fixed in case.fixed)
