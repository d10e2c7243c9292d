"""What cost has to reach; beyond noise is the root of error squared less noise squared."""

from benchmarks.bar import Target

MEAN = "latency error beyond noise, mean"
WORST = "latency error beyond noise, worst"
COVERED = "plans inside the promised interval"
HELD = "random requests answered within their budgets, or told what is reachable"
UNBEATEN = "random requests no fitting reference plan answers better"
SPEED = "times faster than the best rival"
NEVER_SLOWER = "times faster than the best rival, worst of all"
FASTER = "races won by 5 %"
DROP = "drop on test data"
LEAN_DROP = f"{DROP}, MiniLM at 20 % of fp32 bytes"
LEAN_SPEED = "times faster than NNCF's int8 of 25 %, MiniLM at 20 % of fp32 bytes"
BOUND_HELD = "bounds of an accuracy control held on test data"
AS_FAST = "times faster than NNCF's accuracy control as deployed, worst"
PROFILE = "profile of 20 signatures in 4 formats"

TARGETS: dict[str, Target] = {
    MEAN: Target(unit="%", at_most=2),
    WORST: Target(unit="%", at_most=5),
    COVERED: Target(unit="share", at_least=0.9),
    HELD: Target(unit="share", at_least=1.0),
    UNBEATEN: Target(unit="share", at_least=1.0),
    SPEED: Target(unit="x", at_least=1.0),
    NEVER_SLOWER: Target(unit="x", at_least=1.0),
    FASTER: Target(unit="races", at_least=3),
    f"{DROP}, Lite0 at no loss": Target(unit="share", at_most=0.005),
    f"{DROP}, ResNet-32 at no loss": Target(unit="share", at_most=0.002),
    f"{DROP}, MiniLM at no loss": Target(unit="Spearman", at_most=0.002),
    f"{DROP}, MiniLM in ONNX Runtime, static 8-bit inputs": Target(unit="Spearman", at_most=0.005),
    f"{DROP}, MiniLM in OpenVINO, min-max ranges": Target(unit="Spearman", at_most=0.002),
    LEAN_DROP: Target(unit="Spearman", at_most=0.005),
    f"{DROP}, Lite0 in OpenVINO, 16 % of fp32 bytes": Target(unit="share", at_most=0.01),
    LEAN_SPEED: Target(unit="x", at_least=1.0),
    BOUND_HELD: Target(unit="share", at_least=8 / 9),
    AS_FAST: Target(unit="x", at_least=1.0),
    PROFILE: Target(unit="s", at_most=60),
}
