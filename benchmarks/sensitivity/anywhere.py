"""A small random network, so that something is measured where no real model lies."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import torch
from torch import nn

import mpsearch
from benchmarks.bar import Bar, judged
from benchmarks.sensitivity.plans import FORMATS
from benchmarks.sensitivity.targets import TARGETS
from mpsearch.search.refinement import pass_forwards
from mpsearch.workflow.solve import solve_tables

_WIDTH: Final = 16
_SAMPLES: Final = 192
_BUDGET: Final = {"weight_bits": "3.5"}
_EFFORT: Final = 5.0


def bars(*, small: bool) -> Iterator[Bar]:
    """Search with rounds and without, on noise: work is counted, plans are compared."""
    del small  # it is small enough
    torch.manual_seed(0)
    model = _network()
    data = [{"input": torch.randn(_SAMPLES // 3, _WIDTH)} for _ in range(3)]
    with TemporaryDirectory() as folder:
        result = mpsearch.search(
            model,
            data[:2],
            budgets=_BUDGET,
            task="classification",
            validation=data[2:],
            formats=FORMATS,
            runtime="simulation",
            cache=Path(folder),
            effort=_EFFORT,
        )
    table = result.sensitivity
    additive = solve_tables(table, result.costs, budgets=_BUDGET).plan.assignment
    tried = {step.origin: step.measured for step in result.trace}
    name = "searched plan against the optimum of its table"
    yield judged(
        f"random network, {name}",
        [min(tried.values()) / tried[table.metric]],
        target=TARGETS[name],
        extra={
            "verified": len(tried),
            "forwards": result.trace[-1].forwards,
            "exact_pass": pass_forwards(
                result.measured.changes.request.traced, result.measured.scope.offered
            )
            if result.measured.changes is not None
            else None,
            "layers_changed": sum(
                additive[layer] != name for layer, name in result.plan.assignment.items()
            ),
        },
    )


def _network() -> nn.Module:
    """Return six layers whose weights differ in size, so that formats matter unequally."""
    parts: list[nn.Module] = []
    for place in range(6):
        layer = nn.Linear(_WIDTH, _WIDTH)
        layer.weight.data *= 1.5 + place % 3
        parts += [layer, nn.Tanh()]
    return nn.Sequential(*parts, nn.Linear(_WIDTH, 8))
