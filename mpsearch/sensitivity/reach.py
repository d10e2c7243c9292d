"""Layers that cannot change the output: a score of zero would call their damage harmless."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from mpsearch.errors import MeasurementError
from mpsearch.execution.interpreter import Override
from mpsearch.sensitivity.exact_pass import ExactPass
from mpsearch.sensitivity.request import Measurement, Request

_LOG = logging.getLogger("mpsearch.sensitivity")


def without_unreached(found: Measurement, request: Request) -> Measurement:
    """Return the measurement with NaN for layers whose output the task never sees.

    Only layers that score exactly zero in all formats are looked at; data-free metrics
    know nothing of reach and stay as they are.

    Raises:
        MeasurementError: No layer that was asked for changes the output.
    """
    names = request.traced.graph.names
    asked = [layer for layer in names if request.pairs[layer]]
    silent = [layer for layer in asked if not np.nansum(np.abs(found.loss[names.index(layer)]))]
    if not silent or not found.samples:
        return found
    unreached = _unreached(request, silent)
    if not unreached:
        return found
    if len(unreached) == len(asked):
        raise MeasurementError(
            f"The output of task {request.task.name!r} stays the same whatever the "
            f"{len(asked)} layers give, such as {asked[0]!r}. Expected an output that follows from "
            "the layers. Check the task, and that the model returns what it computes."
        )
    _LOG.warning(
        "The output does not depend on %s with this data. These layers have no scores and stay in "
        "the base precision. Give data that reaches them, or a task that uses them.",
        ", ".join(map(repr, unreached)),
    )
    rows = [names.index(layer) for layer in unreached]
    loss, stderr = found.loss.copy(), found.stderr.copy()
    loss[rows] = stderr[rows] = np.nan
    numbers = None if found.numbers is None else found.numbers.copy()
    if numbers is not None:
        numbers[:, rows] = np.nan
    return replace(found, loss=loss, stderr=stderr, numbers=numbers, unreached=frozenset(unreached))


def _unreached(request: Request, layers: Sequence[str]) -> list[str]:
    """Return the layers whose output can be moved without moving the model's."""
    left = list(layers)
    for placed in request.batches():
        moved = ExactPass(request, placed.batch)
        left = [
            layer
            for layer in left
            if torch.equal(moved.outputs(_moves(request, layer)), moved.reference)
        ]
        if not left:
            break
    return left


def _moves(request: Request, layer: str) -> dict[str, Override]:
    nodes = request.traced.module.graph.nodes
    return {node.name: _moved(node) for node in nodes if node.name in request.traced.nodes[layer]}


def _moved(node: fx.Node) -> Override:
    target: Any = node.target

    def compute(*args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401 - an operator's arguments
        value: Tensor = target(*args, **kwargs)
        # Uneven, for norms take an even move back; far, to wake what a threshold keeps silent.
        steps = torch.linspace(-1, 1, value.numel(), device=value.device).reshape(value.shape)
        return value + steps.sin() * (1 + 10 * value.abs().max())

    return compute
