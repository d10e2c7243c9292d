"""What formats have to reach."""

from benchmarks.bar import Target

TARGETS: dict[str, Target] = {
    # Both are of the whole model in one format, so that errors of layers meet.
    "output error, MSE clipping beside min-max": Target(unit="times"),
    # By construction; a number above 1 would be a fault.
    "weight error, MSE clipping beside min-max, worst layer": Target(unit="times", at_most=1),
    # Every linear layer with inputs of 8 bits, so that errors of layers meet.
    "output error in w8a8, smoothed beside mse": Target(unit="times", at_most=1),
}
