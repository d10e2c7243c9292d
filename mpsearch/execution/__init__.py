"""Runs a traced model: as it is, with layers quantised, or from a changed layer on."""

from mpsearch.core.fitting import takes
from mpsearch.execution.additions import addition_overrides, observe_addends
from mpsearch.execution.dynamic import dynamic_group_of
from mpsearch.execution.overrides import layer_override
from mpsearch.execution.prefix_store import PrefixStore
from mpsearch.execution.quantised import QuantisedModel, quantised, quantised_model, run
from mpsearch.execution.ranges import observe_ranges

__all__ = [
    "PrefixStore",
    "QuantisedModel",
    "addition_overrides",
    "dynamic_group_of",
    "layer_override",
    "observe_addends",
    "observe_ranges",
    "quantised",
    "quantised_model",
    "run",
    "takes",
]
