"""The range of a weight with the least squared error, block by block: MSE clipping.

A block is what shares one scale: a row of the matrices here. Memory is bounded by working on
some rows at a time, and what was found is kept, since each batch of a measurement asks again.
"""

import hashlib
import math
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, TypeAlias

import numpy as np
from jaxtyping import Float32, Float64, Int64
from numpy import ndarray

_Rows: TypeAlias = Float32[ndarray, "B N"]
_Search: TypeAlias = Callable[..., Float64[ndarray, "B E"]]

# Numbers at once; the steps of a sweep take some hundred bytes for each.
_AT_ONCE: Final = 2**18
_KEPT: Final = 4096  # results, of one number or two per block
# Shares of an end of the range that are tried; below, a range clips what carries the signal.
_SHRINKS: Final = np.linspace(1.0, 0.05, 39)
_WHOLE_BITS: Final = 62  # of sums of whole numbers
_COARSE: Final = np.linspace(1.0, 0.02, 50)
_ROUNDS: Final = 3  # of moving one end at a time; the third rarely changes anything

_known: OrderedDict[bytes, ndarray] = OrderedDict()
_lock = threading.Lock()


def least_squares_scales(rows: _Rows, *, largest_code: int) -> Float64[ndarray, " B"]:
    """Return for each row the scale s of least |row - s clip(round(row / s))|^2; 1 for zeros.

    Exact over all s at which the largest number takes the last code, that is s at most
    max|row| / (largest_code - 1/2). As s falls, a number w moves on to code k at
    s = |w| / (k - 1/2). Between two such steps the codes c stay, the best scale is
    sum(|w| c) / sum(c^2), and the error sum(w^2) - sum(|w| c)^2 / sum(c^2): all steps are
    walked through in order, but those to scales at which clipping alone loses too much.
    Every MSE clipping by a grid (e.g. Nagel et al., 2021, arXiv 2106.08295, eq. 8) tries a
    subset of this.
    """
    found = _remembered(_swept, rows, largest_code=largest_code)
    return found[:, 0]


def least_squares_ranges(rows: _Rows, *, codes: int) -> Float64[ndarray, "B 2"]:
    """Return for each row the low and high end of the range of least squared error found.

    Each end in turn is shrunk to where the error of `codes` even steps with an exact zero is
    least, from min-max on, so no range is worse than that. The range holds zero.
    """
    return _remembered(_shrunk, rows, codes=codes)


def range_error(
    rows: Float64[ndarray, "B N"], ranges: Float64[ndarray, "B 2"], *, codes: int
) -> Float64[ndarray, " B"]:
    """Return the squared error of rounding each row to `codes` even steps over its range."""
    low, high = ranges[:, :1], ranges[:, 1:]
    step = (high - low) / (codes - 1)
    step[step == 0] = 1.0
    first = np.rint(low / step)
    steps = np.clip(np.rint(rows / step), first, first + codes - 1)
    error: ndarray = np.square(steps * step - rows).sum(axis=1)
    return error


def _remembered(search: _Search, rows: _Rows, **settings: int) -> Float64[ndarray, "B E"]:
    # Sums depend on the order of numbers in memory, and every caller must get the same bits.
    whole = np.ascontiguousarray(rows)
    told = f"{search.__name__} {whole.shape} {sorted(settings.items())}"
    key = hashlib.sha256(told.encode() + whole.tobytes()).digest()
    with _lock:
        if key in _known:
            _known.move_to_end(key)
            return _known[key].copy()
    size = max(1, _AT_ONCE // max(1, whole.shape[1]))
    parts = [
        search(whole[start : start + size].astype(np.float64), **settings)
        for start in range(0, len(whole), size)
    ]
    found = np.concatenate(parts) if parts else np.empty((0, 2))
    with _lock:
        _known[key] = found
        while len(_known) > _KEPT:
            _known.popitem(last=False)
    return found.copy()


def _swept(rows: Float64[ndarray, "B N"], *, largest_code: int) -> Float64[ndarray, "B 1"]:
    peak = np.abs(rows).max(axis=1, initial=0.0)
    unit = np.where(peak > 0, peak, 1.0)
    sizes = np.abs(rows) / unit[:, None]  # the largest is 1
    top = 1 / (largest_code - 0.5)
    codes = np.minimum(np.rint(sizes / top), largest_code).astype(np.int64)
    steps = _Steps(sizes, codes=codes, least=_least_scale(sizes, largest_code), most=largest_code)
    best = steps.best_scale() * unit
    return np.where(peak > 0, best, 1.0)[:, None]


def _least_scale(sizes: Float64[ndarray, "B N"], largest_code: int) -> Float64[ndarray, " B"]:
    """Return a scale below which clipping alone loses more than the best of some scales."""
    scales = _COARSE / largest_code
    clipped = np.empty((len(scales), len(sizes)))
    errors = np.empty_like(clipped)
    for place, scale in enumerate(scales):
        clipped[place] = np.square(np.maximum(sizes - largest_code * scale, 0.0)).sum(axis=1)
        codes = np.minimum(np.rint(sizes / scale), largest_code)
        errors[place] = np.square(codes * scale - sizes).sum(axis=1)
    # Clipping grows as the scale falls; where it never is too much, there is no bound.
    is_too_much = clipped > errors.min(axis=0)
    found: ndarray = np.where(is_too_much.any(axis=0), scales[is_too_much.argmax(axis=0)], 0.0)
    return found


class _Steps:
    """The steps of each row, from the largest scale down: who moves on, to which code."""

    def __init__(
        self,
        sizes: Float64[ndarray, "B N"],
        *,
        codes: Int64[ndarray, "B N"],
        least: Float64[ndarray, " B"],
        most: int,
    ) -> None:
        with np.errstate(divide="ignore", invalid="ignore"):
            last = np.floor(sizes / least[:, None] + 0.5)
        last = np.where(sizes > 0, np.minimum(last, most), 0.0).astype(np.int64)
        counts = np.maximum(last - codes, 0).ravel()
        who = np.repeat(np.arange(counts.size), counts)
        within = np.arange(who.size) - np.repeat(np.cumsum(counts) - counts, counts)
        size, code = sizes.ravel()[who], codes.ravel()[who] + 1 + within
        row = who // max(sizes.shape[1], 1)
        order = np.lexsort((-size / (code - 0.5), row))
        self.row, self.code = row[order], code[order]
        # Whole numbers: their sums are exact, so that no row depends on those before it.
        self.unit = 2.0 ** (_WHOLE_BITS - math.frexp(sizes.shape[1] * most)[1])
        whole = np.rint(sizes * self.unit).astype(np.int64)
        self.size = whole.ravel()[who][order]
        self.product = (whole * codes).sum(axis=1)
        self.square = np.square(codes).sum(axis=1)

    def best_scale(self) -> Float64[ndarray, " B"]:
        """Return the scale of least error of each row, of the range of max|w| for none."""
        starts = np.searchsorted(self.row, np.arange(len(self.product)))
        products = self.product[self.row] + self._sums(self.size, starts)
        squares = self.square[self.row] + self._sums(2 * self.code - 1, starts)
        products = np.concatenate([self.product, products]) / self.unit
        squares = np.maximum(np.concatenate([self.square, squares]), 1)
        rows = np.concatenate([np.arange(len(self.product)), self.row])
        # The last of each row has the largest gain.
        order = np.lexsort((products**2 / squares, rows))
        ends = np.searchsorted(rows[order], np.arange(len(self.product)), side="right") - 1
        best: ndarray = (products / squares)[order][ends]
        return best

    def _sums(
        self, values: Int64[ndarray, " S"], starts: Int64[ndarray, " B"]
    ) -> Int64[ndarray, " S"]:
        """Return running sums that begin again with each row; wrapping round loses nothing."""
        running = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(values)])
        sums: ndarray = running[1:] - running[starts[self.row]]
        return sums


def _shrunk(rows: Float64[ndarray, "B N"], *, codes: int) -> Float64[ndarray, "B 2"]:
    whole = np.stack([rows.min(axis=1, initial=0.0), rows.max(axis=1, initial=0.0)], axis=1)
    best, least = whole.copy(), range_error(rows, whole, codes=codes)
    for _ in range(_ROUNDS):
        before = best.copy()
        for end in (0, 1):
            for share in _SHRINKS:
                tried = best.copy()
                tried[:, end] = whole[:, end] * share
                error = range_error(rows, tried, codes=codes)
                better = error < least
                best[better], least[better] = tried[better], error[better]
        if (best == before).all():
            break
    return best
