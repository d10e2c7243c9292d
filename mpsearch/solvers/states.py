"""All states of one half of the core, in the room and the time there are."""

from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from mpsearch.solvers.clock import CHUNK, check
from mpsearch.solvers.compiled import compiled
from mpsearch.solvers.state_loops import Items, States, enumerate_merged, enumerate_states

_MOST_MERGED = 1 << 18
# Merging is tried first, or where plain enumeration outgrows a little room, by how many of the
# items' weights are distinct.
_MANY_EQUAL, _SOME_EQUAL, _FEW = 0.5, 0.95, 1 << 15
# Each class visits each state: about a second of work.
_MOST_VISITS = 50_000_000


@final
@dataclass(frozen=True, kw_only=True)
class Enumerated:
    """States of a half, and the `index` of those that no other of equal weight beats."""

    states: States
    index: Int[ndarray, " N"]

    @property
    def weight(self) -> Int[ndarray, "N K"]:
        """Return what each state spends beyond the base."""
        return np.asarray(self.states.weight[self.index])

    @property
    def reduced(self) -> Float[ndarray, " N"]:
        """Return what each state costs above the bound."""
        return np.asarray(self.states.reduced[self.index])

    def path(self, place: int) -> Int[ndarray, " P"]:
        """Return the items of a state."""
        state = int(self.index[place])
        items = []
        while state > 0:
            items.append(int(self.states.item[state]))
            state = int(self.states.parent[state])
        return np.array(items, dtype=np.int64)


def enumerated(items: Items, *, most: int, deadline: float) -> Enumerated | None:
    """Return every state of a half, None beyond `most`; equal weights merged where that helps.

    Raises:
        TimeUpError: The deadline passed before.
    """
    distinct = len(np.unique(items.weight, axis=0)) / max(len(items.weight), 1)
    if distinct <= _MANY_EQUAL:
        return _merged(items, most=most, deadline=deadline)
    plain = _plain(items, least=1 << 12, most=min(most, _FEW), deadline=deadline)
    if plain is not None or most <= _FEW:
        return plain
    if distinct < _SOME_EQUAL:
        merged = _merged(items, most=most, deadline=deadline)
        if merged is not None:
            return merged
    return _plain(items, least=8 * _FEW, most=most, deadline=deadline)


def _plain(items: Items, *, least: int, most: int, deadline: float) -> Enumerated | None:
    room = min(most, least)
    while room <= most:
        states = _room(room, budgets=items.weight.shape[1])
        cursor = np.zeros(2, dtype=np.int64)
        done = 0
        while done == 0:
            check(deadline)
            done = compiled(enumerate_states)(items, states, cursor, CHUNK)
        if done > 0:
            return Enumerated(states=states, index=np.arange(cursor[1]))
        room *= 8
    return None


def _merged(items: Items, *, most: int, deadline: float) -> Enumerated | None:
    # A table of more places falls out of the processor's cache, and is searched per class.
    most = min(most, _MOST_MERGED, max(_MOST_VISITS // len(items.start), 1 << 10))
    room = min(most, 1 << 12)
    while room <= most:
        states = _room(room, budgets=items.weight.shape[1])
        table = np.full(1 << (4 * room).bit_length(), -1, dtype=np.int64)
        cursor = np.zeros(2, dtype=np.int64)
        done = 0
        while done == 0:
            check(deadline)
            with np.errstate(over="ignore"):
                done = compiled(enumerate_merged)(items, states, table, cursor, CHUNK)
        if done > 0:
            never = len(items.start)
            return Enumerated(
                states=states, index=np.flatnonzero(states.last[: cursor[1]] == never)
            )
        room *= 8
    return None


def _room(room: int, *, budgets: int) -> States:
    return States(
        reduced=np.empty(room),
        weight=np.empty((room, budgets), dtype=np.int64),
        parent=np.empty(room, dtype=np.int32),
        item=np.empty(room, dtype=np.int32),
        last=np.empty(room, dtype=np.int32),
    )
