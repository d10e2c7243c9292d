"""How much each number format hurts each layer: one metric per file."""

from mpsearch.sensitivity.fisher_direction import FisherDirection
from mpsearch.sensitivity.gradient_output_error import GradientOutputError
from mpsearch.sensitivity.hessian_trace import HessianTrace
from mpsearch.sensitivity.loss_change import LossChange
from mpsearch.sensitivity.masked_error import MaskedError
from mpsearch.sensitivity.metric import AbstractMetric
from mpsearch.sensitivity.output_cosine import OutputCosine
from mpsearch.sensitivity.output_divergence import OutputDivergence
from mpsearch.sensitivity.output_error import OutputError
from mpsearch.sensitivity.output_probe import OutputProbe
from mpsearch.sensitivity.request import Work
from mpsearch.sensitivity.shards import merged
from mpsearch.sensitivity.sqnr_list import SqnrList
from mpsearch.sensitivity.structural_similarity import StructuralSimilarity
from mpsearch.sensitivity.weight_error import WeightError

METRICS: dict[str, AbstractMetric] = {
    "output_error": OutputError(),
    "output_kl": OutputDivergence(),
    "output_cosine": OutputCosine(),
    "output_probe": OutputProbe(),
    "fisher_direction": FisherDirection(),
    "gradient_output_error": GradientOutputError(),
    "hessian_trace": HessianTrace(),
    "loss_change": LossChange(),
    "masked_error": MaskedError(),
    "sqnr_list": SqnrList(),
    "structural_similarity": StructuralSimilarity(),
    "weight_error": WeightError(),
}

__all__ = [
    "METRICS",
    "AbstractMetric",
    "FisherDirection",
    "GradientOutputError",
    "HessianTrace",
    "LossChange",
    "MaskedError",
    "OutputCosine",
    "OutputDivergence",
    "OutputError",
    "OutputProbe",
    "SqnrList",
    "StructuralSimilarity",
    "WeightError",
    "Work",
    "merged",
]
