"""The choices of a relaxed problem that a nearly best answer can use, and their best mix."""

from dataclasses import dataclass, replace
from typing import final

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from mpsearch.solvers.compiled import HAS_NUMBA
from mpsearch.solvers.halves import best_halves
from mpsearch.solvers.join_loops import Half
from mpsearch.solvers.relaxation import Relaxation
from mpsearch.solvers.state_loops import Items
from mpsearch.solvers.states import enumerated

# About 60 bytes a state and budget; two halves of this room stay below 300 MB.
ROOM = 1 << 21 if HAS_NUMBA else 1 << 11
# Prices moved by these shares show early that a state cannot be completed.
_TILTS = (-0.5, -0.15, -0.04, 0.04, 0.15, 0.5)
# Rounding of reduced costs, in a loss that spans one.
_ROUNDING = 1e-14


@final
@dataclass(frozen=True, kw_only=True)
class Mix:
    """The best mix of deviations up to a threshold, `choice` None where there is none.

    `is_complete` says that no mix up to the threshold was left out; `states` is how many
    states the larger half has.
    """

    choice: Int[ndarray, " D"] | None
    is_complete: bool
    states: int


def best_mix(
    relaxation: Relaxation,
    *,
    threshold: float,
    window: float,
    deadline: float,
    most_classes: int | None = None,
    room: int = ROOM,
) -> Mix:
    """Return the best choice whose reduced costs are at most `threshold`.

    With `most_classes` only so many blocks may deviate, most of them the most ambiguous.

    Both halves of the core are enumerated, then joined: the root of the work of enumerating
    the whole. Slack is sought up to a worth of `window`, at least the threshold.
    Source: Horowitz and Sahni (1974), J. ACM 21(2), 277-292; reduced costs as in Pisinger
    (1995), European J. Operational Research 83(2), 394-410.

    Raises:
        TimeUpError: The deadline passed before.
    """
    binding = relaxation.price > 0
    binding[np.argmax(relaxation.price)] = True
    for kept in (binding, np.ones_like(binding)):
        core = _Core.of(
            relaxation, threshold=threshold + _ROUNDING, most_classes=most_classes, binding=kept
        )
        mix = _best_of(core, relaxation, window=window, room=room, deadline=deadline)
        # The best without the free budgets is the best with them, if it keeps them.
        if kept.all() or mix.choice is None or _keeps(relaxation, mix.choice):
            break
    return mix


def _keeps(relaxation: Relaxation, choice: Int[ndarray, " D"]) -> bool:
    moved = np.flatnonzero(choice != relaxation.choice)
    more = relaxation.cost[:, moved, choice[moved]]
    more = more - relaxation.cost[:, moved, relaxation.choice[moved]]
    return bool((more.sum(axis=1) <= relaxation.slack).all())


def _best_of(
    core: "_Core", relaxation: Relaxation, *, window: float, room: int, deadline: float
) -> Mix:
    first, second = (enumerated(items, most=room, deadline=deadline) for items in core.halves)
    if first is None or second is None:
        return Mix(choice=None, is_complete=False, states=room)
    price, slack = relaxation.price[core.binding], relaxation.slack[core.binding]
    first_half, second_half = (
        Half(weight=half.weight, key=half.reduced - half.weight @ price) for half in (first, second)
    )
    pair = best_halves(
        first_half,
        second_half,
        price=price,
        slack=slack,
        window=window + _ROUNDING,
        deadline=deadline,
    )
    choice = None if pair is None else relaxation.choice.copy()
    for half, found in enumerate((first, second)):
        if choice is not None and pair is not None:
            path = found.path(pair[half])
            choice[core.block[half][path]] = core.format[half][path]
    states = max(len(first.index), len(second.index))
    return Mix(choice=choice, is_complete=core.is_complete, states=states)


@final
@dataclass(frozen=True, kw_only=True)
class _Core:
    """Items of two halves of the classes that count, with the block and format of each."""

    halves: tuple[Items, Items]
    block: tuple[Int[ndarray, " I"], Int[ndarray, " J"]]
    format: tuple[Int[ndarray, " I"], Int[ndarray, " J"]]
    is_complete: bool
    binding: Bool[ndarray, " K"]

    @staticmethod
    def of(
        relaxation: Relaxation,
        *,
        threshold: float,
        most_classes: int | None,
        binding: Bool[ndarray, " K"],
    ) -> "_Core":
        every = np.flatnonzero(relaxation.nearest <= threshold)
        order = np.argsort(relaxation.nearest[every], kind="stable")
        classes = every[_spread(order, count=most_classes)]
        parts = [_items(relaxation, classes[half::2], threshold=threshold) for half in (0, 1)]
        parts = [part.with_budgets(binding) for part in parts]
        price, slack = relaxation.price[binding], relaxation.slack[binding]
        directions = _directions(price)
        # What a half must leave to the other: its least tilted cost, and its share of slack.
        rest = [_least(part, directions)[0] for part in parts]
        share = directions @ slack
        halves = []
        for half, part in enumerate(parts):
            least = _least(part, directions) + rest[1 - half] - share
            halves.append(part.items._replace(direction=directions, least=least))
        return _Core(
            halves=(halves[0], halves[1]),
            block=(parts[0].block, parts[1].block),
            format=(parts[0].format, parts[1].format),
            is_complete=len(classes) == len(every),
            binding=binding,
        )


@final
@dataclass(frozen=True, kw_only=True)
class _Part:
    items: Items
    block: Int[ndarray, " I"]
    format: Int[ndarray, " I"]

    def with_budgets(self, kept: Bool[ndarray, " K"]) -> "_Part":
        """Return the part with the weights of some budgets only."""
        weight = np.ascontiguousarray(self.items.weight[:, kept])
        return replace(self, items=self.items._replace(weight=weight))


def _spread(order: Int[ndarray, " C"], *, count: int | None) -> Int[ndarray, " S"]:
    """Return the first of an order, and ever sparser ones of the rest.

    Where blocks are alike, the most ambiguous ones deviate in the same direction only.
    """
    if count is None or count >= len(order):
        return order
    later = np.geomspace(count, len(order), count // 2).astype(np.int64) - 1
    return np.asarray(order[np.union1d(np.arange(count - count // 2), later)])


def _items(relaxation: Relaxation, classes: Int[ndarray, " C"], *, threshold: float) -> _Part:
    base = relaxation.choice[classes]
    cost = relaxation.cost[:, classes]
    loss = relaxation.loss[classes]
    rows = np.arange(len(classes))
    weight = cost - cost[:, rows, base][:, :, None]
    gain = loss - loss[rows, base][:, None]
    with np.errstate(invalid="ignore"):
        reduced = np.maximum(gain + np.tensordot(relaxation.price, weight, axes=1), 0.0)
    keep = (reduced <= threshold) & ~((gain >= 0) & (weight >= 0).all(axis=0))
    group, format_ = np.nonzero(keep)
    order = np.lexsort((reduced[group, format_], group))
    group, format_ = group[order], format_[order]
    # A class whose items all dropped out leaves no gap: classes are numbered anew.
    start = np.unique(group, return_index=True)[1]
    first = np.argsort(reduced[group, format_][start], kind="stable")
    sizes = np.diff(np.append(start, len(group)))[first]
    picks = np.repeat(start[first] - np.cumsum(sizes) + sizes, sizes) + np.arange(len(group))
    group, format_ = group[picks], format_[picks]
    items = Items(
        start=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        reduced=reduced[group, format_],
        weight=np.ascontiguousarray(weight[:, group, format_].T),
        threshold=threshold,
        direction=np.zeros((0, len(relaxation.price))),
        least=np.zeros((len(sizes) + 1, 0)),
    )
    return _Part(items=items, block=classes[group], format=format_)


def _directions(price: Float[ndarray, " K"]) -> Float[ndarray, "M K"]:
    rows = [tilt * price[k] * np.eye(len(price))[k] for k in range(len(price)) for tilt in _TILTS]
    return np.array(rows).reshape(len(rows), len(price))


def _least(part: _Part, directions: Float[ndarray, "M K"]) -> Float[ndarray, "C1 M"]:
    """Return per class and direction the least tilted cost of it and all later classes."""
    items = part.items
    tilted = items.reduced[:, None] + items.weight @ directions.T
    if len(items.reduced) == 0:
        return np.zeros((1, len(directions)))
    least = np.minimum(np.minimum.reduceat(tilted, items.start[:-1], axis=0), 0.0)
    suffix = np.cumsum(least[::-1], axis=0)[::-1]
    return np.concatenate([suffix, np.zeros((1, len(directions)))])
