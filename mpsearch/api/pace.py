"""How often somebody may ask: a bucket of tokens for each, filled at a steady rate."""

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, final

# Those that asked longest ago are forgotten: their buckets are full again anyway.
_MOST_REMEMBERED: Final = 10_000


@final
class Pace:
    """Buckets of `burst` tokens that fill at `per_second`; one process, one memory."""

    def __init__(
        self, *, per_second: float, burst: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._per_second = per_second
        self._burst = float(burst)
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, name: str) -> float:
        """Return for how many seconds `name` must not ask: 0 where it may."""
        return max(0.0, (1.0 - self._tokens(name)) / self._per_second)

    def take(self, name: str) -> None:
        """Note that `name` has asked."""
        self._buckets[name] = (self._tokens(name) - 1.0, self._clock())
        self._buckets.move_to_end(name)
        if len(self._buckets) > _MOST_REMEMBERED:
            self._buckets.popitem(last=False)

    def _tokens(self, name: str) -> float:
        tokens, since = self._buckets.get(name, (self._burst, self._clock()))
        return min(self._burst, tokens + (self._clock() - since) * self._per_second)
