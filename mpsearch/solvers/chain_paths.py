"""All paths along a chain that are nearly the shortest, and the best of them that fits."""

import math

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from mpsearch.solvers.chain_loops import Chain, Paths, least_to_come, prefixes
from mpsearch.solvers.clock import CHUNK, check
from mpsearch.solvers.compiled import HAS_NUMBA, compiled
from mpsearch.solvers.halves import best_halves
from mpsearch.solvers.join_loops import Half

# Prefixes of both halves together stay below 200 MB.
_ROOM = 1 << 20 if HAS_NUMBA else 1 << 12


def near_paths(
    chain: Chain,
    *,
    price: Float[ndarray, " K"],
    room: Int[ndarray, " K"],
    threshold: float,
    deadline: float,
) -> Int[ndarray, " D"] | None:
    """Return the best path whose excess is at most `threshold`; empty if none, None if too many.

    Raises:
        TimeUpError: The deadline passed before.
    """
    middle = len(chain.unary) // 2
    ahead = np.empty(chain.unary.shape)
    compiled(least_to_come)(chain, ahead)
    back_chain = _reversed(chain)
    behind = np.empty(chain.unary.shape)
    compiled(least_to_come)(back_chain, behind)
    greatest = float((chain.unary[0] + ahead[0]).min()) + threshold
    first = _prefixes(chain, ahead, greatest=greatest, blocks=middle + 1, deadline=deadline)
    second = _prefixes(
        back_chain,
        behind,
        greatest=greatest,
        blocks=len(chain.unary) - middle,
        deadline=deadline,
    )
    if first is None or second is None:
        return None
    best, path = math.inf, np.zeros(0, dtype=np.int64)
    for f in range(chain.unary.shape[1]):
        ends = [_ends(half, f) for half in (first, second)]
        if not (len(ends[0]) and len(ends[1])):
            continue
        # The middle block is counted by the first half only.
        weights = [first.weight[ends[0]], second.weight[ends[1]] - chain.weight[middle, f]]
        keys = [
            first.cost[ends[0]] - weights[0] @ price,
            second.cost[ends[1]] - chain.unary[middle, f] - weights[1] @ price,
        ]
        halves = (Half(weight=weights[0], key=keys[0]), Half(weight=weights[1], key=keys[1]))
        pair = best_halves(*halves, price=price, slack=room, window=threshold, deadline=deadline)
        if pair is not None and keys[0][pair[0]] + keys[1][pair[1]] < best:
            best = keys[0][pair[0]] + keys[1][pair[1]]
            tail = _path(second, int(ends[1][pair[1]]))[::-1]
            path = np.concatenate([_path(first, int(ends[0][pair[0]])), tail[1:]])
    return path


def _reversed(chain: Chain) -> Chain:
    def turned(pair: ndarray) -> ndarray:
        flipped = np.swapaxes(pair[:-1][::-1], 1, 2)
        return np.ascontiguousarray(np.concatenate([flipped, np.zeros_like(pair[:1])]))

    return Chain(
        unary=np.ascontiguousarray(chain.unary[::-1]),
        pair=turned(chain.pair),
        weight=np.ascontiguousarray(chain.weight[::-1]),
        pair_weight=turned(chain.pair_weight),
    )


def _prefixes(
    chain: Chain,
    rest: Float[ndarray, "N F"],
    *,
    greatest: float,
    blocks: int,
    deadline: float,
) -> Paths | None:
    part = Chain(*(array[:blocks] for array in chain))
    room = min(_ROOM, 1 << 14)
    while room <= _ROOM:
        paths = Paths(
            cost=np.empty(room),
            weight=np.empty((room, chain.weight.shape[2]), dtype=np.int64),
            parent=np.empty(room, dtype=np.int32),
            format=np.empty(room, dtype=np.int32),
            layer=np.zeros(blocks + 1, dtype=np.int64),
        )
        table = np.full(4 * room, -1, dtype=np.int64)
        cursor = np.zeros(2, dtype=np.int64)
        done = 0
        while done == 0:
            check(deadline)
            with np.errstate(over="ignore"):
                done = compiled(prefixes)(
                    part, rest[:blocks], greatest, paths, table, cursor, CHUNK
                )
        if done > 0:
            return paths
        room *= 8
    return None


def _ends(paths: Paths, format_: int) -> Int[ndarray, " P"]:
    """Return the complete prefixes that end in a format."""
    start, stop = int(paths.layer[-2]), int(paths.layer[-1])
    return start + np.flatnonzero(paths.format[start:stop] == format_)


def _path(paths: Paths, place: int) -> Int[ndarray, " N"]:
    formats = []
    while place >= 0:
        formats.append(int(paths.format[place]))
        place = int(paths.parent[place])
    return np.array(formats[::-1], dtype=np.int64)
