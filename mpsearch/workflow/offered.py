"""Which formats each layer can take, known before anything is profiled or measured."""

from collections.abc import Iterable, Mapping, Sequence

from mpsearch.core.cache import Cache
from mpsearch.core.formats import format_named
from mpsearch.core.graph import LayerGraph, Op
from mpsearch.core.hardware import Support
from mpsearch.cost import support_of
from mpsearch.errors import FormatError
from mpsearch.runtimes import AbstractRuntime

SupportByLayer = Mapping[str, Mapping[str, Support]]


def supported(
    graph: LayerGraph,
    *,
    runtime: AbstractRuntime,
    base: str,
    formats: Sequence[str],
    narrowed: Mapping[Op, Sequence[str]] | None,
    cache: Cache | None,
) -> dict[str, dict[str, Support]]:
    """Return how the runtime treats each layer in the base and in formats on offer.

    `narrowed` says which formats are on offer to which kind of layer; None offers all to all.
    """
    found = support_of(graph, runtime=runtime, formats=(base, *formats), base=base, cache=cache)
    return {
        layer.name: {
            name: found[layer.name][name]
            for name in (base, *formats)
            if name == base or narrowed is None or name in narrowed.get(layer.op, ())
        }
        for layer in graph.layers
    }


def offered(
    supports: Sequence[SupportByLayer],
    *,
    runtime: str,
    formats: Sequence[str],
    examples: Iterable[str],
) -> dict[str, tuple[str, ...]]:
    """Return the formats that each layer can take under at least one base.

    Args:
        supports: What `supported` found, one per base.
        runtime: Name of the runtime, for the message.
        formats: What was asked for, for the message.
        examples: Formats that a layer of this runtime can take, for the message.

    Raises:
        FormatError: No layer can take any of them.
    """
    found = {
        layer: tuple(
            dict.fromkeys(
                name
                for support in supports
                for name, kind in support[layer].items()
                if kind is not Support.NONE and not format_named(name).is_floating
            )
        )
        for layer in supports[0]
    }
    if not any(found.values()):
        raise FormatError(
            f"Runtime {runtime!r} can run none of the {len(found)} layers in "
            f"{', '.join(formats)}. Expected formats such as {', '.join(examples)}. "
            "Choose others."
        )
    return found
