"""What cost has to reach; beyond noise is the root of error squared less noise squared."""

from benchmarks.bar import Target

MEAN = "latency error beyond noise, mean"
WORST = "latency error beyond noise, worst"
COVERED = "plans inside the promised interval"
PROFILE = "profile of 20 signatures in 4 formats"

TARGETS: dict[str, Target] = {
    MEAN: Target(unit="%", at_most=2),
    WORST: Target(unit="%", at_most=5),
    COVERED: Target(unit="share", at_least=0.9),
    PROFILE: Target(unit="s", at_most=60),
}
