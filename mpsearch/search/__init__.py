"""Propose plans, measure them, keep what is measured better."""

from mpsearch.search.candidates import SearchSpace, identity, propose
from mpsearch.search.references import reference_assignments
from mpsearch.search.rounds import HoldsContests, Judged, search_rounds
from mpsearch.search.within_drop import Certified, search_within_drop

__all__ = [
    "Certified",
    "HoldsContests",
    "Judged",
    "SearchSpace",
    "identity",
    "propose",
    "reference_assignments",
    "search_rounds",
    "search_within_drop",
]
