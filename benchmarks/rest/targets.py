"""What the HTTP service has to reach."""

from benchmarks.bar import Target

TARGETS: dict[str, Target] = {
    # Short enough that a form feels immediate.
    "POST to 202, median": Target(unit="ms", at_most=50),
    # A slider that re-solves while it moves.
    "re-solve of a stored table, median": Target(unit="ms", at_most=100),
    "answers undocumented or faulty": Target(unit="findings", at_most=0),
}
