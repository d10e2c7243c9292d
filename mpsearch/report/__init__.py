"""One self-contained HTML file that shows a result: look first, read second."""

from mpsearch.report.tried import TriedPlan, tried_plan
from mpsearch.report.write import write_report

__all__ = ["TriedPlan", "tried_plan", "write_report"]
