"""What cost has to reach; beyond noise is the root of error squared less noise squared."""

from benchmarks.bar import Target

MEAN = "latency error beyond noise, mean"
WORST = "latency error beyond noise, worst"
COVERED = "plans inside the promised interval"
HELD = "random requests answered within their budgets, or told what is reachable"
UNBEATEN = "random requests no fitting reference plan answers better"
PROFILE = "profile of 20 signatures in 4 formats"

TARGETS: dict[str, Target] = {
    MEAN: Target(unit="%", at_most=2),
    WORST: Target(unit="%", at_most=5),
    COVERED: Target(unit="share", at_least=0.9),
    HELD: Target(unit="share", at_least=1.0),
    UNBEATEN: Target(unit="share", at_least=1.0),
    PROFILE: Target(unit="s", at_most=60),
}
