"""The hot loops along a chain of blocks: shortest paths, and all paths that are nearly so."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

_MIX = -7046029254386353131


class Chain(NamedTuple):
    """Blocks in order with priced losses, pair costs to the next block, and what they spend."""

    unary: Float[ndarray, "N F"]
    pair: Float[ndarray, "N F F"]
    weight: Int[ndarray, "N F K"]
    pair_weight: Int[ndarray, "N F F K"]


class Paths(NamedTuple):
    """Room for prefixes of paths; `layer[i]` is where those that end in block i start."""

    cost: Float[ndarray, " P"]
    weight: Int[ndarray, "P K"]
    parent: Int[ndarray, " P"]
    format: Int[ndarray, " P"]
    layer: Int[ndarray, " N+1"]


def least_to_come(chain: Chain, rest: Float[ndarray, "N F"]) -> None:
    """Fill in the least cost of everything after each block, given its format."""
    blocks, formats = chain.unary.shape
    rest[blocks - 1, :] = 0.0
    for block in range(blocks - 2, -1, -1):
        for f in range(formats):
            least = np.inf
            for g in range(formats):
                cost = chain.pair[block, f, g] + chain.unary[block + 1, g] + rest[block + 1, g]
                least = min(least, cost)
            rest[block, f] = least


def shortest_path(  # noqa: PLR0917 - machine code takes arguments by position
    chain: Chain, rest: Float[ndarray, "N F"], path: Int[ndarray, " N"]
) -> float:
    """Fill in the least costs to come and a path that attains them; return its cost."""
    least_to_come(chain, rest)
    cost = np.inf
    for block in range(len(path)):
        best = np.inf
        for g in range(chain.unary.shape[1]):
            onward = chain.unary[block, g] + rest[block, g]
            if block > 0:
                onward += chain.pair[block - 1, path[block - 1], g]
            if onward < best:
                best, path[block] = onward, g
        if block == 0:
            cost = best
    return cost


def prefixes(  # noqa: PLR0917 - machine code takes arguments by position
    chain: Chain,
    rest: Float[ndarray, "N F"],
    greatest: float,
    paths: Paths,
    table: Int[ndarray, " T"],
    cursor: Int[ndarray, " 2"],
    most: int,
) -> int:
    """Fill in prefixes of paths that can end at most at `greatest`; equal ones merged.

    `rest` is the least cost to come. Goes on from `cursor` (next block, count), which starts
    at zero, for about `most` steps. Returns 1 where all prefixes are there, 0 where more calls
    are needed, -1 where the room is short.
    """
    block, count = cursor[0], cursor[1]
    formats = chain.unary.shape[1]
    if block == 0:
        for f in range(formats):
            if chain.unary[0, f] + rest[0, f] <= greatest:
                paths.cost[count] = chain.unary[0, f]
                paths.weight[count, :] = chain.weight[0, f, :]
                paths.parent[count], paths.format[count] = -1, f
                count += 1
        paths.layer[0], paths.layer[1] = 0, count
        block = 1
    steps = 0
    while block < chain.unary.shape[0] and steps < most:
        for place in range(paths.layer[block - 1], paths.layer[block]):
            count = _extend(chain, rest, greatest, paths, table, block, place, count)
            if count < 0:
                return -1
        steps += formats * (1 + paths.layer[block] - paths.layer[block - 1])
        paths.layer[block + 1] = count
        block += 1
    cursor[0], cursor[1] = block, count
    return 1 if block == chain.unary.shape[0] else 0


def _extend(  # noqa: PLR0917 - machine code takes arguments by position
    chain: Chain,
    rest: Float[ndarray, "N F"],
    greatest: float,
    paths: Paths,
    table: Int[ndarray, " T"],
    block: int,
    place: int,
    count: int,
) -> int:
    """Append the continuations of one prefix, or better equal ones in their place."""
    f = paths.format[place]
    for g in range(chain.unary.shape[1]):
        cost = paths.cost[place] + chain.pair[block - 1, f, g] + chain.unary[block, g]
        if cost + rest[block, g] > greatest:
            continue
        if count == len(paths.cost):
            return -1
        for k in range(paths.weight.shape[1]):
            spent = chain.weight[block, g, k] + chain.pair_weight[block - 1, f, g, k]
            paths.weight[count, k] = paths.weight[place, k] + spent
        paths.format[count] = g
        slot = _slot(paths, table, paths.layer[block], count)
        other = table[slot]
        if other < paths.layer[block] or other >= count:
            table[slot] = count
            other = count
            count += 1
        elif paths.cost[other] <= cost:
            continue
        paths.cost[other], paths.parent[other] = cost, place
    return count


def _slot(paths: Paths, table: Int[ndarray, " T"], start: int, count: int) -> int:  # noqa: PLR0917 - machine code takes arguments by position
    """Return the place of an equal prefix of this layer, or where it belongs.

    Entries of earlier layers count as empty, so that the table need not be cleared.
    """
    mask = len(table) - 1
    code = np.int64(paths.format[count])
    for k in range(paths.weight.shape[1]):
        code = (code ^ paths.weight[count, k]) * _MIX
        code ^= (code >> 29) & 0x7FFFFFFFF
    slot = int(code & mask)
    while start <= table[slot] < count:
        other = table[slot]
        is_equal = paths.format[other] == paths.format[count]
        for k in range(paths.weight.shape[1]):
            is_equal = is_equal and paths.weight[other, k] == paths.weight[count, k]
        if is_equal:
            break
        slot = (slot + 1) & mask
    return slot
