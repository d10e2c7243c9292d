"""How the layers of a long measurement are divided into shards."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias, final

import numpy as np

Shards: TypeAlias = tuple[tuple[str, ...], ...]
# What a shard spends before it measures: a process, the model read and traced, one pass a batch.
LEAST_SECONDS: Final = 10.0
# One shard has nothing to share.
_FEWEST: Final = 2


@final
@dataclass(frozen=True, kw_only=True)
class Sharding:
    """What shards there may be: at most so many, each of so many seconds on average."""

    most: int
    least_seconds: float = LEAST_SECONDS


def divided(seconds: Mapping[str, float], *, sharding: Sharding) -> Shards:
    """Return neighbouring layers in shards that take about as long as each other.

    There are as many as take `least_seconds` on average; none where that is but one.

    Example:
        >>> seconds = {"a": 20.0, "b": 12.0, "c": 8.0}
        >>> divided(seconds, sharding=Sharding(most=2))
        (('a',), ('b', 'c'))
        >>> divided(seconds, sharding=Sharding(most=8, least_seconds=30.0))
        ()
    """
    layers, amounts = tuple(seconds), np.array([*seconds.values()], dtype=float)
    total = float(amounts.sum())
    count = min(len(layers), sharding.most, int(total // sharding.least_seconds))
    if count < _FEWEST:
        return ()
    # A layer belongs to the shard that its middle falls into.
    middles = (amounts.cumsum() - amounts / 2) / total
    places = np.minimum((middles * count).astype(int), count - 1)
    shards = (
        tuple(layer for layer, own in zip(layers, places, strict=True) if own == place)
        for place in range(count)
    )
    filled = tuple(shard for shard in shards if shard)
    return filled if len(filled) >= _FEWEST else ()
