"""What sums are possible at all: loss and spend of any choice lie on a lattice.

Where costs are multiples of a few sizes, or losses whole numbers of some unit that goes with
the costs, most excesses over the Lagrangian bound belong to no choice. The least one that may
closes gaps that enumeration would need for ever: the sums of Pisinger's strongly correlated
instances, for example, are `loss + spend = a constant + 10 x whole number`.
"""

import math
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from mpsearch.solvers.relaxation import Relaxation

# Slacks that are looked at; a lattice with more of them below the gap closes none.
_MOST_POINTS = 10_000
_MOST_BUDGETS = 4
# A unit of the loss below this share of the bound closes no gap that is asked for.
_LEAST_UNIT = 1e-8
# Sums of losses may differ from whole numbers of units by this share of one.
_INEXACT = 1e-3
_BATCH = 32
# Products of entries stay exact.
_MOST_EXACT = 1 << 62
_ROUNDING = 1e-12


@final
@dataclass(frozen=True, kw_only=True)
class LatticeBound:
    """The (slack, excess) that choices may have: `origin` plus whole multiples of `basis`.

    Rows of the triangular `basis` (N, N) are slacks of the `price`d budgets, and a last
    column of whole loss `unit`s where losses have one (`unit` 0 where they have none); excesses
    are off by at most `inexact`.
    Source: Gomory (1965), Proc. Nat. Acad. Sci. 53(2), 260-265, relaxes to such a group; the
    cardinality bounds of Pisinger (1999), Oper. Res. 47(4), 570-575, are the case of one sum.
    """

    basis: Int[ndarray, "N N"]
    slack: Int[ndarray, " K"]
    excess: float
    price: Float[ndarray, " K"]
    unit: float
    inexact: float

    def least(self, proven: float) -> float:
        """Return the least excess, `proven` at least, that a choice within the limits may have.

        Excess is at least the worth of the slack, so only slacks worth less are looked at.
        """
        reach = self._reach()
        slack, units = self._points(reach)
        least = np.maximum(slack @ self.price, proven)
        if self.unit > 0:
            period = self.unit * int(self.basis[-1, -1])
            first = self.excess + self.unit * units
            # Rounding must not push an excess that is met exactly to the next one.
            steps = np.ceil((least - first - self.inexact) / period)
            least = first + period * steps - self.inexact
        found = min(float(least.min(initial=math.inf)), reach)
        return max(found - _ROUNDING, proven)

    def _reach(self) -> float:
        """Return the worth of slack up to which not too many points have to be looked at."""
        step = self.price * np.diagonal(self.basis)[: len(self.price)]
        low, high = 0.0, float(step.sum()) * _MOST_POINTS
        for _ in range(60):
            middle = (low + high) / 2
            if float(np.prod(np.floor(middle / step) + 1)) <= _MOST_POINTS:
                low = middle
            else:
                high = middle
        return low

    def _points(self, reach: float) -> tuple[Int[ndarray, "P K"], Int[ndarray, " P"]]:
        """Return all slacks worth at most `reach`, and the units of loss beyond them."""
        budgets = len(self.price)
        points = np.zeros((1, len(self.basis)), dtype=np.int64)
        points[0, :budgets] = self.slack
        for place in range(budgets):
            step = int(self.basis[place, place])
            most = int(reach / self.price[place])
            first = points - (points[:, [place]] // step) * self.basis[place]
            more = np.arange(most // step + 1)
            points = (first[:, None] + more[:, None] * self.basis[place]).reshape(
                -1, len(self.basis)
            )
            worth = points[:, : place + 1] @ self.price[: place + 1]
            points = points[worth <= reach]
        units = points[:, budgets] if self.unit > 0 else np.zeros(len(points), dtype=np.int64)
        return points[:, :budgets], units


def lattice_bound(relaxation: Relaxation) -> LatticeBound | None:
    """Return what the losses and costs of a relaxed problem have in common, None if nothing."""
    priced = np.flatnonzero(relaxation.price > 0)
    if not 0 < len(priced) <= _MOST_BUDGETS:
        return None
    blocks = np.arange(len(relaxation.choice))
    allowed = np.isfinite(relaxation.loss)
    base = relaxation.cost[:, blocks, relaxation.choice]
    # A choice that spends more leaves less.
    change = -(relaxation.cost - base[:, :, None])[priced][:, allowed].T
    gain = np.where(allowed, relaxation.loss, 0.0)
    gain = gain - relaxation.loss[blocks, relaxation.choice][:, None]
    unit = _unit(np.abs(gain[allowed]), least=_LEAST_UNIT * abs(relaxation.bound))
    inexact = 0.0
    if unit > 0:
        units = np.round(gain / unit)
        inexact = float(np.where(allowed, np.abs(gain - units * unit), 0.0).max(axis=1).sum())
        change = np.concatenate([change, units[allowed].astype(np.int64)[:, None]], axis=1)
    if inexact > _INEXACT * unit:
        return None
    basis = _basis(change)
    if basis is None:
        return None
    return LatticeBound(
        basis=basis,
        slack=relaxation.slack[priced],
        excess=relaxation.excess(relaxation.choice),
        price=relaxation.price[priced],
        unit=unit,
        inexact=inexact + _ROUNDING,
    )


def _unit(values: Float[ndarray, " N"], *, least: float) -> float:
    """Return the number of which all values are whole multiples (nearly), 0 if below `least`.

    Euclid's algorithm on all at once; remainders below a millionth of `least` are rounding.
    """
    rest = np.unique(values[values > 1e-6 * least])
    unit = float(rest.min(initial=math.inf))
    while least <= unit < math.inf:
        remainder = np.abs(rest - np.round(rest / unit) * unit)
        rest = np.unique(remainder[remainder > 1e-6 * least])
        if len(rest) == 0:
            # All values together say it more exactly than the last remainder.
            whole = np.round(values / unit)
            return float(values @ whole / (whole @ whole))
        unit = float(rest.min())
    return 0.0


def _basis(vectors: Int[ndarray, "M N"]) -> Int[ndarray, "N N"] | None:
    """Return a triangular basis of all whole combinations of vectors, None where they fill all.

    None as well where they span fewer dimensions, or are too large for exact sums.
    """
    size = vectors.shape[1]
    rows: list[list[int] | None] = [None] * size
    left = np.unique(vectors, axis=0) if len(vectors) <= _MOST_POINTS else vectors
    while len(left):
        for vector in left[:: max(1, len(left) // _BATCH)].tolist():
            _insert(rows, vector)
        kept = [row for row in rows if row is not None]
        if len(kept) < size:
            return None
        basis = np.array([_shortened(kept, place) for place in range(size)], dtype=object)
        if all(row[place] == 1 for place, row in enumerate(kept)):
            return None
        if int(np.abs(basis).max()) * int(np.abs(vectors).max()) > _MOST_EXACT:
            return None
        left = _outside(left, basis.astype(np.int64))
    return np.asarray(basis.astype(np.int64)) if len(vectors) else None


def _insert(rows: list[list[int] | None], vector: list[int]) -> None:
    """Add a vector to a triangular basis in place, row by row (Hermite normal form)."""
    for place, found in enumerate(rows):
        if vector[place] == 0:
            continue
        row = found if found is not None else [0] * len(vector)
        while vector[place]:
            share = row[place] // vector[place]
            rest = [a - share * b for a, b in zip(row, vector, strict=True)]
            row, vector = vector, rest
        rows[place] = [-entry for entry in row] if row[place] < 0 else row
        if found is None:
            return


def _shortened(rows: list[list[int]], place: int) -> list[int]:
    """Return a row whose entries are below those of the rows that follow."""
    short = rows[place]
    for later in range(place + 1, len(rows)):
        share = short[later] // rows[later][later]
        short = [a - share * b for a, b in zip(short, rows[later], strict=True)]
    return short


def _outside(vectors: Int[ndarray, "M N"], basis: Int[ndarray, "N N"]) -> Int[ndarray, "L N"]:
    """Return the vectors that are no whole combination of the rows of a basis."""
    rest = vectors.copy()
    is_inside = np.ones(len(rest), dtype=bool)
    for place, row in enumerate(basis):
        share = rest[:, place] // row[place]
        rest -= share[:, None] * row
        is_inside &= rest[:, place] == 0
    return np.asarray(vectors[~is_inside])
