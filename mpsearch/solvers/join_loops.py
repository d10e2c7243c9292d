"""The hot loops that find the best pair of states, one of each half.

A pair fits where the weights of both stay within the slack; its excess over the bound is
`reduced` of both plus the price of the slack left. With the key `reduced - price . weight` of
a state the excess is key + key + price . slack.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray


class Half(NamedTuple):
    """States of one half: their weight and key."""

    weight: Int[ndarray, "N K"]
    key: Float[ndarray, " N"]


class Grid(NamedTuple):
    """States of the other half, sorted by cell and then by the weight of budget 0.

    A cell is a box of `width` in two further budgets; cell (a, b) has the states from
    `start[a * columns + b]` on. A pair within `window` of the bound lies in one of the two
    cells per budget that follow the box of what is left.
    """

    half: Half
    start: Int[ndarray, " G"]
    rows: int
    columns: int
    low: Int[ndarray, " 2"]
    width: Int[ndarray, " 2"]


def best_pair_of_one(first: Half, second: Half, slack: int) -> tuple[int, int]:  # noqa: PLR0917 - machine code takes arguments by position
    """Return the best pair that fits one budget; both halves are sorted by weight.

    (-1, -1) where no pair fits.
    """
    best, pair_first, pair_second = np.inf, -1, -1
    place, least, holder = 0, np.inf, -1
    for index in range(len(first.key) - 1, -1, -1):
        room = slack - first.weight[index, 0]
        while place < len(second.key) and second.weight[place, 0] <= room:
            if second.key[place] < least:
                least, holder = second.key[place], place
            place += 1
        if holder >= 0 and first.key[index] + least < best:
            best, pair_first, pair_second = first.key[index] + least, index, holder
    return pair_first, pair_second


class Pair(NamedTuple):
    """The best pair so far: its key, and (next state of the first half, its two places)."""

    key: Float[ndarray, " 1"]
    place: Int[ndarray, " 3"]


def best_pair_of_many(  # noqa: PLR0917 - machine code takes arguments by position
    first: Half,
    grid: Grid,
    slack: Int[ndarray, " K"],
    reach: Int[ndarray, " K"],
    pair: Pair,
    most: int,
) -> bool:
    """Seek the best pair that fits every budget and leaves at most `reach` of each.

    `pair` starts at (infinity) and (0, -1, -1), where both stay if there is none. Returns
    whether all was looked at; if not, after about `most` steps, more calls are needed.
    """
    room = np.empty(len(slack), dtype=np.int64)
    steps = 0
    index = pair.place[0]
    while index < len(first.key) and steps < most:
        for k in range(len(slack)):
            room[k] = slack[k] - first.weight[index, k]
        wanted = pair.key[0] - first.key[index]
        found, seen = _best_partner(grid, room, reach, wanted)
        if found >= 0:
            pair.key[0] = first.key[index] + grid.half.key[found]
            pair.place[1], pair.place[2] = index, found
        steps += 1 + seen
        index += 1
    pair.place[0] = index
    return bool(index == len(first.key))


def _best_partner(  # noqa: PLR0917 - machine code takes arguments by position
    grid: Grid, room: Int[ndarray, " K"], reach: Int[ndarray, " K"], wanted: float
) -> tuple[int, int]:
    """Return the partner with the least key below `wanted`, or -1, and how many were seen."""
    found, seen = -1, 0
    row_low = max((room[1] - reach[1] - grid.low[0]) // grid.width[0], 0)
    row_high = min((room[1] - grid.low[0]) // grid.width[0], grid.rows - 1)
    for row in range(row_low, row_high + 1):
        column_low, column_high = 0, 0
        if grid.columns > 1:
            column_low = max((room[2] - reach[2] - grid.low[1]) // grid.width[1], 0)
            column_high = min((room[2] - grid.low[1]) // grid.width[1], grid.columns - 1)
        for column in range(column_low, column_high + 1):
            cell = row * grid.columns + column
            place = _first_at_least(grid, cell, room[0] - reach[0])
            while place < grid.start[cell + 1] and grid.half.weight[place, 0] <= room[0]:
                if grid.half.key[place] < wanted and _fits(grid, place, room):
                    wanted, found = grid.half.key[place], place
                place += 1
                seen += 1
    return found, seen


def _first_at_least(grid: Grid, cell: int, weight: int) -> int:  # noqa: PLR0917 - machine code takes arguments by position
    low, high = int(grid.start[cell]), int(grid.start[cell + 1])
    while low < high:
        middle = (low + high) // 2
        if grid.half.weight[middle, 0] < weight:
            low = middle + 1
        else:
            high = middle
    return low


def _fits(grid: Grid, place: int, room: Int[ndarray, " K"]) -> bool:  # noqa: PLR0917 - machine code takes arguments by position
    fits = True
    for k in range(1, len(room)):
        fits = fits and grid.half.weight[place, k] <= room[k]
    return fits
