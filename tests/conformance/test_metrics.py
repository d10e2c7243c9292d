"""Every registered metric obeys the laws of metrics."""

from mpsearch.sensitivity import METRICS, AbstractMetric, HessianTrace
from mpsearch.testing.metric_laws import MetricLaws


class TestOutputError(MetricLaws):
    """Exact squared error of the output."""

    def metric(self) -> AbstractMetric:
        return METRICS["output_error"]


class TestOutputKl(MetricLaws):
    """Exact divergence of the output."""

    def metric(self) -> AbstractMetric:
        return METRICS["output_kl"]


class TestOutputCosine(MetricLaws):
    """Exact cosine distance of the output."""

    def metric(self) -> AbstractMetric:
        return METRICS["output_cosine"]


class TestOutputProbe(MetricLaws):
    """Random directions on the outputs."""

    def metric(self) -> AbstractMetric:
        return METRICS["output_probe"]


class TestFisherDirection(MetricLaws):
    """Labels drawn from the model."""

    def metric(self) -> AbstractMetric:
        return METRICS["fisher_direction"]


class TestGradientOutputError(MetricLaws):
    """Squares first, without labels."""

    def metric(self) -> AbstractMetric:
        return METRICS["gradient_output_error"]


class TestGradientOutputErrorOfLabels(MetricLaws):
    """Squares first, of the labelled loss."""

    labelled = True

    def metric(self) -> AbstractMetric:
        return METRICS["gradient_output_error"]


class TestHessianTrace(MetricLaws):
    """Curvature without labels, where it is never negative."""

    # Second derivatives sum float32 products of products.
    split_tolerance = 5e-3

    def metric(self) -> AbstractMetric:
        return HessianTrace(draws=4, probes="weights")


class TestHessianTraceOfLabels(MetricLaws):
    """Curvature of the labelled loss."""

    labelled = True
    is_monotone = False
    split_tolerance = 2e-2  # curvatures of both signs cancel

    def metric(self) -> AbstractMetric:
        return HessianTrace(draws=4, probes="weights")


class TestHessianTraceOfOutputs(MetricLaws):
    """Curvature of the divergence, from probes of the outputs."""

    def metric(self) -> AbstractMetric:
        return HessianTrace(draws=2)


class TestLossChange(MetricLaws):
    """Exact rise of the labelled loss."""

    labelled = True
    is_monotone = False
    split_tolerance = 1e-2  # differences of nearly equal losses

    def metric(self) -> AbstractMetric:
        return METRICS["loss_change"]


class TestMaskedError(MetricLaws):
    """Layers masked."""

    def metric(self) -> AbstractMetric:
        return METRICS["masked_error"]


class TestSqnrList(MetricLaws):
    """Signal-to-noise ratio."""

    def metric(self) -> AbstractMetric:
        return METRICS["sqnr_list"]


class TestWeightError(MetricLaws):
    """Weights alone."""

    def metric(self) -> AbstractMetric:
        return METRICS["weight_error"]


def test_every_metric_has_its_suite() -> None:
    suites = [each for each in MetricLaws.__subclasses__() if each.__module__ == __name__]
    covered = {type(suite().metric()) for suite in suites}
    assert covered == {type(metric) for metric in METRICS.values()}


def test_names_in_the_registry_are_those_of_the_metrics() -> None:
    assert all(metric.name == name for name, metric in METRICS.items())


class TestStructuralSimilarity(MetricLaws):
    """Exact structural similarity of the output."""

    def metric(self) -> AbstractMetric:
        return METRICS["structural_similarity"]
