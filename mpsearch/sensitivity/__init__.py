"""How much each number format hurts each layer: one metric per file."""

from mpsearch.sensitivity.fisher_direction import FisherDirection
from mpsearch.sensitivity.gradient_output_error import GradientOutputError
from mpsearch.sensitivity.metric import AbstractMetric
from mpsearch.sensitivity.output_error import OutputError
from mpsearch.sensitivity.output_probe import OutputProbe
from mpsearch.sensitivity.request import Work

METRICS: dict[str, AbstractMetric] = {
    "output_error": OutputError(),
    "output_probe": OutputProbe(),
    "fisher_direction": FisherDirection(),
    "gradient_output_error": GradientOutputError(),
}

__all__ = [
    "METRICS",
    "AbstractMetric",
    "FisherDirection",
    "GradientOutputError",
    "OutputError",
    "OutputProbe",
    "Work",
]
