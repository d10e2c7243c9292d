"""A sensitivity phase divided into shards of layers, which several workers measure at once.

A shard brings into the cache what a search of the same request looks for there, so the search
that follows measures nothing again, and finds the bits that it would have measured itself.
"""

from collections.abc import Mapping, Sequence
from time import perf_counter

from mpsearch.core.progress import Progress
from mpsearch.errors import UnknownLayerError
from mpsearch.execution import run
from mpsearch.search.refinement import layer_forwards
from mpsearch.sensitivity.output_changes import measure_layers, missing_pairs
from mpsearch.workflow.division import Sharding, Shards, divided
from mpsearch.workflow.effort import Effort
from mpsearch.workflow.measure import scope_of
from mpsearch.workflow.prepare import Prepared


def shards_of(
    prepared: Prepared,
    *,
    sharding: Sharding,
    formats: Sequence[str] | None,
    runtime: str,
    fixed: Mapping[str, str] | None,
    effort: Effort,
    progress: Progress | None = None,
) -> Shards:
    """Return the layers of each shard, none where dividing would not pay.

    Only exact passes are divided, of whole formats: other measurements take one pass for all
    layers. What the cache holds does not count. Under a limit in seconds the search decides
    by itself what to measure, and nothing is divided.
    """
    if not effort.is_exact or effort.seconds < float("inf") or prepared.is_apart:
        return ()
    scope, _ = scope_of(prepared, formats=formats, runtime=runtime, fixed=fixed, progress=progress)
    missing = missing_pairs(scope.request(prepared), cache=prepared.cache)
    each = layer_forwards(prepared.traced)
    seconds = {layer: count * each[layer] for layer, count in missing.items() if count}
    scale = _seconds_of_a_pass(prepared)
    return divided({layer: scale * share for layer, share in seconds.items()}, sharding=sharding)


def measure_shard(
    prepared: Prepared,
    layers: Sequence[str],
    *,
    formats: Sequence[str] | None,
    runtime: str,
    fixed: Mapping[str, str] | None,
    progress: Progress | None = None,
) -> None:
    """Measure some layers into the cache, for a search with the same arguments.

    Raises:
        UnknownLayerError: The model has no such layer.
    """
    unknown = [layer for layer in layers if layer not in prepared.traced.graph.names]
    if unknown:
        raise UnknownLayerError(
            f"The shard names layer {unknown[0]!r}. Expected layers of the model, such as "
            f"{prepared.traced.graph.names[0]!r}. Divide the model that is measured."
        )
    scope, _ = scope_of(prepared, formats=formats, runtime=runtime, fixed=fixed, progress=progress)
    measure_layers(scope.request(prepared), layers, cache=prepared.cache, progress=progress)


def _seconds_of_a_pass(prepared: Prepared) -> float:
    """Return how long one batch takes here, once it is warm."""
    batch = next(iter(prepared.calibration))
    run(prepared.traced, batch)
    start = perf_counter()
    run(prepared.traced, batch)
    return perf_counter() - start
