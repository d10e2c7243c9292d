"""What a plan costs: bytes and operations counted, latency measured and predicted."""

from mpsearch.cost.profile import profile, support_of
from mpsearch.cost.timing import CoreState, Timeable, Timings, time_together

__all__ = ["CoreState", "Timeable", "Timings", "profile", "support_of", "time_together"]
