"""Give the time of every executed node to a layer: its own, or as glue to the next one."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from mpsearch.errors import MeasurementError
from mpsearch.runtimes import NodeTime


def layer_seconds(
    nodes: Sequence[NodeTime], *, layers: Sequence[str], whole_seconds: float
) -> Float[ndarray, " L"]:
    """Return the seconds of a plan that go to each layer; they sum to `whole_seconds`.

    A node that runs layers goes to them, in equal parts. Glue (reorders, quantising, norms,
    attention products) goes to the layer executed next, behind the last one to the last. The
    counters are then scaled to the time of the whole plan, so that what they leave out
    (calling the runtime, parts of a microsecond) and what disturbed them is spread evenly.
    On MiniLM this order predicted whole plans as well as walking the runtime's graph. Where
    no node takes as long as the counters resolve, every layer that ran gets the same.

    Raises:
        MeasurementError: No node ran a layer, or a time is negative or not finite.
    """
    place = {name: index for index, name in enumerate(layers)}
    seconds = np.zeros(len(layers))
    waiting = 0.0
    last: list[int] = []
    ran: set[int] = set()
    for node in nodes:
        if not (np.isfinite(node.seconds) and node.seconds >= 0):
            raise MeasurementError(
                f"Node {node.name!r} took {node.seconds} s. Expected a finite time. Measure again."
            )
        own = [place[name] for name in node.layers if name in place]
        if own:
            seconds[own] += (node.seconds + waiting) / len(own)
            waiting, last = 0.0, own
        else:
            waiting += node.seconds
        ran |= set(own)
    if not last:
        raise MeasurementError(
            f"None of {len(nodes)} executed nodes ran one of {len(layers)} layers. Expected the "
            "runtime to tell which node runs which layer. Use another runtime."
        )
    seconds[last] += waiting / len(last)
    if seconds.sum() <= 0:
        seconds[list(ran)] = 1.0
    scaled: Float[ndarray, " L"] = seconds * (whole_seconds / seconds.sum())
    return scaled
