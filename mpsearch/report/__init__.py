"""One self-contained HTML file that shows a result: look first, read second."""

from mpsearch.report.tried import TriedPlan
from mpsearch.report.write import write_report

__all__ = ["TriedPlan", "write_report"]
