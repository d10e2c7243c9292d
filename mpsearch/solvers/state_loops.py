"""The hot loops over states: enumerate them, merge equal ones, join two halves.

Plain loops over arrays, written for `compiled`. A state is a set of deviations from a base
choice, at most one per class: `reduced` is what they cost above the bound, `weight` what they
spend beyond the base, `parent` and `item` lead back to the empty state 0.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

# An odd number with bits all over (the golden ratio x 2**64, signed).
_MIX = -7046029254386353131


class Items(NamedTuple):
    """Deviations by class: class c has the items `start[c]` to `start[c + 1]`.

    Classes are sorted by their cheapest item, the items of a class by reduced cost. States
    above `threshold` are left out. Per direction m, `least[c, m]` is the least of reduced cost
    + `direction[m]` . weight over all that a state up to class c - 1 leaves open, less the
    direction's share of the slack: a state that exceeds the threshold with it has no future.
    """

    start: Int[ndarray, " C+1"]
    reduced: Float[ndarray, " I"]
    weight: Int[ndarray, "I K"]
    threshold: float
    direction: Float[ndarray, "M K"]
    least: Float[ndarray, "C+1 M"]


class States(NamedTuple):
    """Room for N states; `last` is the class of the last item, or where a state was beaten."""

    reduced: Float[ndarray, " N"]
    weight: Int[ndarray, "N K"]
    parent: Int[ndarray, " N"]
    item: Int[ndarray, " N"]
    last: Int[ndarray, " N"]


def enumerate_states(  # noqa: PLR0917 - machine code takes arguments by position
    items: Items, states: States, cursor: Int[ndarray, " 2"], most: int
) -> int:
    """Fill in states up to the threshold for about `most` steps from `cursor` on.

    `cursor` (next parent, count of states) starts at zero. Returns 1 where all are
    there, 0 where more calls are needed, -1 where the room is short.
    """
    place, count = cursor[0], cursor[1]
    if count == 0:
        _set_empty(states, -1)
        count = 1
    steps = 0
    while place < count and steps < most:
        count, tried = _append_children(items, states, place, count)
        if count < 0:
            return -1
        steps += 1 + tried
        place += 1
    cursor[0], cursor[1] = place, count
    return 1 if place == count else 0


def _append_children(items: Items, states: States, place: int, count: int) -> tuple[int, int]:  # noqa: PLR0917 - machine code takes arguments by position
    """Append the children of a state; return the count of states and how many were tried.

    The count is -1 where the room is short.
    """
    tried = 0
    for group in range(states.last[place] + 1, len(items.start) - 1):
        if states.reduced[place] + items.reduced[items.start[group]] > items.threshold:
            break
        for item in range(items.start[group], items.start[group + 1]):
            tried += 1
            if states.reduced[place] + items.reduced[item] > items.threshold:
                break
            if _is_hopeless(items, states, place, item, group):
                continue
            if count == len(states.reduced):
                return -1, tried
            _append(items, states, place, item, count)
            states.last[count] = group
            count += 1
    return count, tried


def enumerate_merged(  # noqa: PLR0917 - machine code takes arguments by position
    items: Items,
    states: States,
    table: Int[ndarray, " T"],
    cursor: Int[ndarray, " 2"],
    most: int,
) -> int:
    """Fill in the cheapest state of each weight, for about `most` steps from `cursor` on.

    `table` is an empty (-1) hash table of 2**m places, larger than the room for states. A
    state in force at the end has a `last` beyond every class. `cursor` (next class, count of
    states) starts at zero; returns as `enumerate_states` does.
    """
    classes = len(items.start) - 1
    never = len(items.start)
    group, count = cursor[0], cursor[1]
    if count == 0:
        _set_empty(states, never)
        table[_slot(states, table, 0)] = 0
        count = 1
    steps = 0
    while group < classes and steps < most:
        end = count
        for place in range(end):
            if states.last[place] >= group:
                count = _extend(items, states, table, place, group, count)
            if count < 0:
                return -1
        steps += end
        group += 1
    cursor[0], cursor[1] = group, count
    return 1 if group == classes else 0


def _extend(  # noqa: PLR0917 - machine code takes arguments by position
    items: Items, states: States, table: Int[ndarray, " T"], place: int, group: int, count: int
) -> int:
    """Append the children of a state in one class; return the count, -1 where room is short."""
    never = len(items.start)
    for item in range(items.start[group], items.start[group + 1]):
        if states.reduced[place] + items.reduced[item] > items.threshold:
            break
        if _is_hopeless(items, states, place, item, group):
            continue
        if count == len(states.reduced):
            return -1
        _append(items, states, place, item, count)
        slot = _slot(states, table, count)
        other = table[slot]
        if other >= 0:
            if states.reduced[other] <= states.reduced[count]:
                continue
            # Beaten after this class: within it, it still has children of its own.
            states.last[other] = min(states.last[other], group)
        states.last[count] = never
        table[slot] = count
        count += 1
    return count


def _set_empty(states: States, last: int) -> None:
    states.reduced[0], states.parent[0], states.item[0], states.last[0] = 0.0, -1, -1, last
    states.weight[0, :] = 0


def _is_hopeless(items: Items, states: States, place: int, item: int, group: int) -> bool:  # noqa: PLR0917 - machine code takes arguments by position
    total = states.reduced[place] + items.reduced[item]
    for m in range(items.direction.shape[0]):
        tilted = total + items.least[group + 1, m]
        for k in range(items.direction.shape[1]):
            weight = states.weight[place, k] + items.weight[item, k]
            tilted += items.direction[m, k] * weight
        if tilted > items.threshold:
            return True
    return False


def _append(items: Items, states: States, place: int, item: int, count: int) -> None:  # noqa: PLR0917 - machine code takes arguments by position
    states.reduced[count] = states.reduced[place] + items.reduced[item]
    for k in range(items.weight.shape[1]):
        states.weight[count, k] = states.weight[place, k] + items.weight[item, k]
    states.parent[count] = place
    states.item[count] = item


def _slot(states: States, table: Int[ndarray, " T"], count: int) -> int:  # noqa: PLR0917 - machine code takes arguments by position
    """Return where a state of this weight stands in the table, or belongs."""
    mask = len(table) - 1
    code = np.int64(0)
    for k in range(states.weight.shape[1]):
        code = (code ^ states.weight[count, k]) * _MIX
        code ^= (code >> 29) & 0x7FFFFFFFF
    slot = int(code & mask)
    while table[slot] >= 0:
        other = table[slot]
        is_equal = True
        for k in range(states.weight.shape[1]):
            is_equal = is_equal and states.weight[other, k] == states.weight[count, k]
        if is_equal:
            break
        slot = (slot + 1) & mask
    return slot
