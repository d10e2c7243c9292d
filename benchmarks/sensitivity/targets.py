"""What searched plans have to reach on test data: KL, cosine distance for embeddings."""

from benchmarks.bar import Target

ONE_PASS = 1.0
FIVE_PASSES = 5.0

# By model, effort in exact passes, and mean bits per weight.
DIVERGENCES: dict[str, dict[float, dict[float, float]]] = {
    "cifar10_resnet20": {
        ONE_PASS: {3.0: 0.65, 3.5: 0.178, 4.0: 0.064, 5.0: 0.014},
        FIVE_PASSES: {3.0: 0.63, 3.5: 0.165, 4.0: 0.060, 5.0: 0.013},
    },
    "stories260k": {
        ONE_PASS: {3.0: 1.76, 3.5: 0.58, 4.0: 0.166},
        FIVE_PASSES: {3.0: 1.70, 3.5: 0.545, 4.0: 0.164},
    },
    "minilm_l6_v2": {
        ONE_PASS: {3.0: 0.373, 4.0: 0.080},
        FIVE_PASSES: {3.0: 0.36, 4.0: 0.078},
    },
}
# The larger network is compared with the best single metric of its own table.
AGAINST_SINGLE_METRICS: dict[str, tuple[float, ...]] = {"cifar10_resnet32": (3.5, 4.0)}
SEEDS: tuple[int, ...] = (0, 1, 2, 3, 4)

TARGETS: dict[str, Target] = {
    "above the best single metric": Target(unit="%", at_most=2.0),
    "searched plan against the optimum of its table": Target(unit="x", at_most=1.0),
    "forwards of the search": Target(unit="exact passes", at_most=1.25),
    "forecast of squared output error": Target(unit="% of the measured", at_most=15),
    "standard error of all-layer traces": Target(unit="x per-layer products", at_most=1),
    "standard error of all-layer products": Target(unit="x per-layer products"),
    "largest difference of traces": Target(unit="x its bound", at_most=1),
    "largest miss of a closed form": Target(unit="x its bound", at_most=1),
    "error of a single probe that has no noise": Target(unit="relative", at_most=1e-5),
    "peak memory": Target(unit="x (1.5 model + limit)", at_most=1),
    "entries measured twice after kill -9": Target(unit="entries", at_most=1),
    "resumed tables bit-identical": Target(unit="share", at_least=1),
    "processor time of one draw": Target(unit="x gradient_output_error", at_most=1.3),
}


def unit_of(model: str) -> str:
    """Return what the referee's divergence is of a model's outputs."""
    return "cosine distance" if "minilm" in model else "nats"
