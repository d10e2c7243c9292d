"""Residual additions whose addends are quantised: their ranges, and what the sums become."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, Final

import torch
from pydantic import TypeAdapter
from torch import Tensor, fx

from mpsearch.core.cache import Cache, content_hash
from mpsearch.core.placement import addend_keys, additions_with
from mpsearch.core.plan import ActivationQuantizer
from mpsearch.core.progress import Progress, tracked
from mpsearch.errors import MeasurementError, PlanError
from mpsearch.execution.interpreter import Override, evaluate, on_device_of
from mpsearch.quant.fake_torch import fake_quantise_activation
from mpsearch.quant.ranges import DEFAULT_RANGE_METHOD, RangeObserver, activation_quantizer
from mpsearch.tasks.dataset import Dataset
from mpsearch.tracing.additions import Addition, find_additions
from mpsearch.tracing.traced_model import TracedModel

_KIND: Final = "addend_ranges"
_REVISION: Final = 1  # raise it when the same data would give other ranges


def observe_addends(
    traced: TracedModel,
    data: Dataset,
    *,
    additions: Iterable[str],
    method: str = DEFAULT_RANGE_METHOD,
    cache: Cache | None = None,
    progress: Progress | None = None,
) -> dict[str, ActivationQuantizer]:
    """Run the data once at full precision; return quantisers of the addends of additions.

    Args:
        traced: The model.
        data: Calibration data.
        additions: Names of residual additions; of each, both addends get one.
        method: A key of `quant.ranges.RANGE_METHODS`.
        cache: Where results are kept; None keeps nothing.
        progress: Told after each batch.

    Raises:
        MeasurementError: An addend is not finite; names the addition.
    """
    wanted = tuple(additions)
    key = content_hash(_REVISION, traced.graph.fingerprint, data.fingerprint, method, wanted)
    stored = None if cache is None else cache.get(_KIND, key)
    if stored is not None:
        return TypeAdapter(dict[str, ActivationQuantizer]).validate_python(stored)
    observers = {key: RangeObserver(method=method) for name in wanted for key in addend_keys(name)}
    watched: dict[str, list[tuple[str, RangeObserver]]] = {}
    for addition in find_additions(traced):
        if addition.name in wanted:
            for node, side in zip(_addends(addition), addend_keys(addition.name), strict=True):
                watched.setdefault(node.name, []).append((addition.name, observers[side]))
    for batch in tracked(data, "observe additions", total=len(data), progress=progress):
        _observe_(traced, batch, watched=watched)
    found = {side: activation_quantizer(observer) for side, observer in observers.items()}
    if cache is not None:
        values = {name: dataclasses.asdict(each) for name, each in found.items()}
        cache.put(_KIND, key, value=values)
    return found


def addition_overrides(
    traced: TracedModel, quantizers: Mapping[str, ActivationQuantizer]
) -> dict[str, Override]:
    """Return, for each addition whose addends have quantisers, how to compute it with them.

    Raises:
        PlanError: The model has no such addition, or one of two addends has no quantiser.
    """
    wanted = additions_with(quantizers)
    known = {each.name: each for each in find_additions(traced)} if wanted else {}
    overrides: dict[str, Override] = {}
    for name in wanted:
        sides = [quantizers.get(key) for key in addend_keys(name)]
        if name not in known or None in sides:
            lack = "the model has no such addition" if name not in known else "one has none"
            raise PlanError(
                f"The plan quantises the addends of the residual addition {name!r}, and {lack}. "
                f"Expected two quantisers for one of its {len(known)} residual additions. Use the "
                "plan with the model it was made for, or search again."
            )
        own, other = (each for each in sides if each is not None)
        overrides[known[name].node.name] = _sum(known[name], own=own, other=other)
    return overrides


def _addends(addition: Addition) -> tuple[fx.Node, fx.Node]:
    """Return what is added: what comes from the addition's own layer, and the other."""
    own, other = (addition.node.args[place] for place in (addition.own_slot, 1 - addition.own_slot))
    assert isinstance(own, fx.Node)
    assert isinstance(other, fx.Node)
    return own, other


def _sum(addition: Addition, *, own: ActivationQuantizer, other: ActivationQuantizer) -> Override:
    first, second = (own, other) if addition.own_slot == 0 else (other, own)

    def compute(one: Tensor, another: Tensor, **_: Any) -> Tensor:  # noqa: ANN401 - an operator's arguments
        return fake_quantise_activation(one, first) + fake_quantise_activation(another, second)

    return compute


def _observe_(
    traced: TracedModel,
    batch: Mapping[str, Tensor],
    *,
    watched: Mapping[str, list[tuple[str, RangeObserver]]],
) -> None:
    samples = len(next(iter(batch.values())))

    def look(node: fx.Node, value: Any) -> Any:  # noqa: ANN401 - any node's value
        for addition, observer in watched.get(node.name, ()):
            try:
                observer.observe_(value.detach().cpu().float().numpy(), samples=samples)
            except MeasurementError as error:
                raise MeasurementError(f"Addend of addition {addition!r}: {error}") from error
        return value

    with torch.no_grad():
        evaluate(traced, on_device_of(traced, batch), after=look)
