"""What a plan costs: bytes and operations counted, latency measured and predicted."""

from mpsearch.cost.profile import profile, support_of
from mpsearch.cost.timing import CoreState, Timeable, Timings, time_together
from mpsearch.cost.workloads import profile_workloads

__all__ = [
    "CoreState",
    "Timeable",
    "Timings",
    "profile",
    "profile_workloads",
    "support_of",
    "time_together",
]
