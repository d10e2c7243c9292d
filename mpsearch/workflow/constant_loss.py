"""What is lost before any layer is quantised: by a base precision, by a placement."""

import dataclasses
from collections.abc import Mapping
from typing import Final

from mpsearch.core.cache import content_hash
from mpsearch.core.placement import RESIDUAL_ADDS
from mpsearch.core.plan import ActivationQuantizer, Plan
from mpsearch.verification.deployment import simulate
from mpsearch.verification.quality import measure_quality, reference_outputs
from mpsearch.workflow.prepare import Prepared

# Parts of cache keys; raise one when its computation changes.
_BASE_REVISION: Final = 1
_ADDITIONS_REVISION: Final = 1


def base_loss(prepared: Prepared, *, base: str) -> float:
    """Return the loss of running everything in the base, nothing quantised."""
    if base == "fp32":
        return 0.0
    plan = Plan(assignment=dict.fromkeys(prepared.traced.graph.names, base), base=base)
    return _loss(prepared, plan, kind="base_loss", what=(_BASE_REVISION, base))


def additions_loss(prepared: Prepared, *, addends: Mapping[str, ActivationQuantizer]) -> float:
    """Return the loss of quantising the addends of residual additions, and nothing else."""
    plan = Plan(
        assignment=dict.fromkeys(prepared.traced.graph.names, "fp32"),
        placement=RESIDUAL_ADDS,
        quantizers=addends,
    )
    numbers = {key: dataclasses.asdict(each) for key, each in addends.items()}
    return _loss(prepared, plan, kind="additions_loss", what=(_ADDITIONS_REVISION, numbers))


def _loss(prepared: Prepared, plan: Plan, *, kind: str, what: tuple[int, object]) -> float:
    graph, data = prepared.traced.graph, prepared.calibration
    revision, detail = what
    key = content_hash(revision, graph.fingerprint, data.fingerprint, prepared.task.name, detail)
    stored = prepared.cache.get(kind, key)
    if stored is not None:
        return float(stored["loss"])
    quality = measure_quality(
        lambda batch: simulate(prepared.traced, plan, batch=batch),
        task=prepared.task,
        data=data,
        reference=reference_outputs(prepared.traced, task=prepared.task, data=data),
    )
    prepared.cache.put(kind, key, value={"loss": quality.loss})
    return quality.loss
