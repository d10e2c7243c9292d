"""Accuracy where low precision hurts: the leanest plan that holds the bound, beside references."""

from collections.abc import Iterator, Sequence
from typing import Final

from benchmarks.bar import Bar, judged
from benchmarks.cost.leanest import Leanest
from benchmarks.cost.targets import DROP, TARGETS
from mpsearch.search import Judged

_SHOWN: Final = 12  # plans beside the chosen one


def bars(wanted: Sequence[tuple[str, Leanest, float]]) -> Iterator[Bar]:
    """Search each, called by name, until validation holds its bound; report on test data."""
    for title, leanest, bound in wanted:
        winner = leanest.within(bound).winner
        name = f"{DROP}, {title}"
        yield judged(
            name,
            [leanest.drop(winner, part="test")],
            target=TARGETS[name],
            extra={
                "full_precision": leanest.full_score("test"),
                "steps": leanest.tried(),
                "plans": _beside(leanest),
            },
        )


def _beside(leanest: Leanest) -> list[dict[str, object]]:
    """Return what the plans of the last contest spend and lose, the chosen one first."""
    (*_, last) = leanest.steps
    built = [each for each in last.result.tried if each.entry.deployment is not None]
    chosen = [built[0], *(each for each in built[1:] if each.is_reference)][:_SHOWN]
    return [_facts(leanest, each) for each in chosen]


def _facts(leanest: Leanest, each: Judged) -> dict[str, object]:
    return {
        "plan": each.entry.plan.origin,
        "keeps_budgets": each.keeps,
        "drop": leanest.drop(each, part="test"),
        "ms": each.entry.amount["latency_ns"] / 1e6,
        "bytes": each.entry.amount["weight_bytes"],
    }
