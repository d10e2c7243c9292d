"""Plans that were built and measured, as plain data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, final, runtime_checkable

from mpsearch.core.plan import Plan


@final
@dataclass(frozen=True, kw_only=True)
class TriedPlan:
    """A plan beside what was measured of it; `broken` says why it could not be built.

    `left_out` says why a plan that was judged was not timed.

    `amount` maps resources to measured values, or counted ones. `loss` is that of unseen
    data with its standard error, None where it was not measured.
    """

    plan: Plan
    is_reference: bool
    keeps: bool
    amount: Mapping[str, float] = field(default_factory=dict)
    loss: float | None = None
    stderr: float = 0.0
    fidelity: Mapping[str, float] = field(default_factory=dict)
    broken: str = ""
    left_out: str = ""


@runtime_checkable
class QualityLike(Protocol):
    """Measured loss and fidelity."""

    @property
    def loss(self) -> float: ...  # noqa: D102 - named as what it holds

    @property
    def stderr(self) -> float: ...  # noqa: D102 - the same

    @property
    def fidelity(self) -> Mapping[str, float]: ...  # noqa: D102 - the same


@runtime_checkable
class EntryLike(Protocol):
    """A plan in a contest."""

    @property
    def plan(self) -> Plan: ...  # noqa: D102 - the same

    @property
    def quality(self) -> QualityLike | None: ...  # noqa: D102 - the same

    @property
    def broken(self) -> str: ...  # noqa: D102 - the same

    @property
    def amount(self) -> Mapping[str, float]: ...  # noqa: D102 - the same


@runtime_checkable
class JudgedLike(Protocol):
    """What the search returns for each plan that it measured."""

    @property
    def entry(self) -> EntryLike: ...  # noqa: D102 - the same

    @property
    def is_reference(self) -> bool: ...  # noqa: D102 - the same

    @property
    def keeps(self) -> bool: ...  # noqa: D102 - the same

    @property
    def left_out(self) -> str: ...  # noqa: D102 - the same


def tried_plan(judged: JudgedLike | TriedPlan) -> TriedPlan:
    """Return a judged plan as plain data, which a file can hold."""
    if isinstance(judged, TriedPlan):
        return judged
    entry = judged.entry
    quality = entry.quality
    return TriedPlan(
        plan=entry.plan,
        is_reference=judged.is_reference,
        keeps=judged.keeps,
        amount=dict(entry.amount),
        loss=None if quality is None else quality.loss,
        stderr=0.0 if quality is None else quality.stderr,
        fidelity={} if quality is None else dict(quality.fidelity),
        broken=entry.broken,
        left_out=judged.left_out,
    )
