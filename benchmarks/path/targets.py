"""What the whole path has to reach."""

from benchmarks.bar import Target

TARGETS: dict[str, Target] = {
    # The wait that a newcomer accepts; installing comes on top.
    "demo wall time": Target(unit="s", at_most=300),
    "budgets kept when measured": Target(unit="share", at_least=1),
    "multiply-accumulates run with prefix reuse": Target(unit="% of L x F full passes", at_most=60),
    "latency error beyond noise, mean": Target(unit="%", at_most=4),
    "latency error beyond noise, worst": Target(unit="%", at_most=10),
    "loss above the best reference plan": Target(unit="standard errors", at_most=1),
    "entries measured twice after kill -9": Target(unit="entries", at_most=1),
    "resumed tables bit-identical": Target(unit="share", at_least=1),
}
