"""What reading models has to reach."""

from benchmarks.bar import Target

_ALL = Target(unit="share", at_least=1)

TARGETS: dict[str, Target] = {
    # Operators that torch's exporters and the models of packages produce.
    "node cases of common operators": Target(unit="share", at_least=0.98),
    "node cases of all operators on numbers": Target(unit="share"),
    "largest difference of an exported model to ONNX Runtime": Target(unit="", at_most=1e-4),
    "largest difference of a gradient to the module's": Target(unit="relative", at_most=1e-3),
    "largest difference of a package's model to ONNX Runtime": Target(unit="", at_most=1e-4),
    "packages' models searched end to end": Target(unit="models", at_least=2),
    "models of the zoo traced, searched and verified": _ALL,
    "models of the zoo whose plan misses a forecast": Target(unit="models"),
    "loss of the zoo's plan beside one format": Target(unit="ratio"),
    # Somebody waits for it in front of a terminal.
    "reading 500 nodes": Target(unit="s of processor", at_most=2),
    "reading and tracing 500 nodes": Target(unit="s of processor"),
    "memory of reading a large file": Target(unit="of its size", at_most=1.2),
}
