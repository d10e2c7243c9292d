"""How much each number format hurts each layer: one metric per file."""

from mpsearch.sensitivity.metric import AbstractMetric, Work
from mpsearch.sensitivity.output_error import OutputError

METRICS: dict[str, AbstractMetric] = {
    "output_error": OutputError(),
}

__all__ = ["METRICS", "AbstractMetric", "Work"]
