"""Tables and budgets become one optimisation problem, and its answer becomes a plan again."""

from mpsearch.formulation.budgets import ParsedBudget, Yardsticks, parse_budgets, resolve_budgets
from mpsearch.formulation.formulate import Formulation, formulate

__all__ = [
    "Formulation",
    "ParsedBudget",
    "Yardsticks",
    "formulate",
    "parse_budgets",
    "resolve_budgets",
]
