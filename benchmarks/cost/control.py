"""Against NNCF's accuracy control at the same bound: what is lost on test data, and how fast."""

from collections.abc import Iterator, Sequence
from typing import Final

from benchmarks.bar import Bar, judged
from benchmarks.cost.leanest import Leanest
from benchmarks.cost.rivals import nncf_within
from benchmarks.cost.speed import timed
from benchmarks.cost.targets import AS_FAST, BOUND_HELD, TARGETS
from mpsearch.tracing import base_onnx

BOUNDS: Final = (0.002, 0.005, 0.01)


def bars(wanted: Sequence[Leanest], *, bounds: Sequence[float] = BOUNDS) -> Iterator[Bar]:
    """Yield how often our drop holds the bound, and our time against NNCF's as deployed."""
    rows = [_row(leanest, bound=bound) for leanest in wanted for bound in bounds]
    held = [float(row["drop"] <= row["bound"]) for row in rows]
    extra: dict[str, object] = {"rows": rows}
    share = sum(held) / len(held)
    yield judged(BOUND_HELD, [share], target=TARGETS[BOUND_HELD], extra=extra)
    ratios = [row["their_ms"] / row["ms"] for row in rows]
    yield judged(AS_FAST, ratios, target=TARGETS[AS_FAST], statistic="min")


def _row(leanest: Leanest, *, bound: float) -> dict[str, float]:
    subject = leanest.request.subject
    base = base_onnx(subject.traced())
    theirs = nncf_within(base, subject, drop=bound)
    winner = leanest.within(bound).winner
    deployment = winner.entry.deployment
    assert deployment is not None
    assert deployment.executable is not None
    timings = timed(deployment.executable, theirs, leanest=leanest)
    ours, default, under_f32 = (timings.seconds * 1e3).tolist()
    full, test = leanest.full_score("test"), subject.parts["test"]
    return {
        "samples": float(leanest.request.samples),
        "bound": bound,
        "drop": leanest.drop(winner, part="test"),
        "ms": ours,
        "their_drop": full - subject.score(theirs[0].forward(), test),
        "their_ms": default,
        "their_drop_f32": full - subject.score(theirs[1].forward(), test),
        "their_ms_f32": under_f32,
    }
