"""Propose plans, measure them, keep what is measured better."""

from mpsearch.search.candidates import SearchSpace, identity, propose
from mpsearch.search.references import reference_assignments
from mpsearch.search.rounds import Judged, search_rounds

__all__ = ["Judged", "SearchSpace", "identity", "propose", "reference_assignments", "search_rounds"]
