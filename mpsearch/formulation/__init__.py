"""Tables and budgets become one optimisation problem, and its answer becomes a plan again."""

from mpsearch.formulation.budgets import (
    ParsedBudget,
    Yardsticks,
    parse_budgets,
    resolve_budgets,
    resource_of,
)
from mpsearch.formulation.explain import infeasible_error
from mpsearch.formulation.formulate import Formulation, formulate
from mpsearch.formulation.planning import Z_95, plan_of, predicted_loss

__all__ = [
    "Z_95",
    "Formulation",
    "ParsedBudget",
    "Yardsticks",
    "formulate",
    "infeasible_error",
    "parse_budgets",
    "plan_of",
    "predicted_loss",
    "resolve_budgets",
    "resource_of",
]
