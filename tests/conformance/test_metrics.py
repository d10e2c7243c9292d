"""Every registered metric obeys the laws of metrics."""

from mpsearch.sensitivity import METRICS, AbstractMetric
from mpsearch.testing.metric_laws import MetricLaws


class TestOutputError(MetricLaws):
    """Exact squared error of the output."""

    def metric(self) -> AbstractMetric:
        return METRICS["output_error"]


class TestOutputProbe(MetricLaws):
    """Random directions on the outputs."""

    def metric(self) -> AbstractMetric:
        return METRICS["output_probe"]


class TestFisherDirection(MetricLaws):
    """Labels drawn from the model."""

    def metric(self) -> AbstractMetric:
        return METRICS["fisher_direction"]


class TestGradientOutputError(MetricLaws):
    """Squares first."""

    def metric(self) -> AbstractMetric:
        return METRICS["gradient_output_error"]


def test_every_metric_has_its_suite() -> None:
    suites = [each for each in MetricLaws.__subclasses__() if each.__module__ == __name__]
    covered = {type(suite().metric()) for suite in suites}
    assert covered == {type(metric) for metric in METRICS.values()}


def test_names_in_the_registry_are_those_of_the_metrics() -> None:
    assert all(metric.name == name for name, metric in METRICS.items())
