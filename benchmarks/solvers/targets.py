"""What the solvers have to reach."""

from benchmarks.bar import Target

TARGETS: dict[str, Target] = {
    "560 blocks, 1 budget: faster than HiGHS": Target(unit="x", at_least=20),
    "560 blocks, 1 budget: faster than CBC": Target(unit="x", at_least=100),
    "560 blocks, 2 budgets: median time to proof": Target(unit="s", at_most=0.3),
    "560 blocks, 2 budgets: slowest transformer": Target(unit="s", at_most=1),
    "5000 blocks, 3 budgets: median time to proof": Target(unit="s", at_most=5),
    "45000 blocks, 16 formats: median time to proof": Target(unit="s", at_most=5),
    "100000 blocks, 16 formats: median time to proof": Target(unit="s", at_most=5),
    "100000 blocks, 16 formats: peak memory": Target(unit="MB", at_most=800),
    "first call of a process": Target(unit="s", at_most=3),
    "100 exact points of a front, 560 blocks": Target(unit="s", at_most=2),
    "chain of 560 with edge costs: faster than HiGHS": Target(unit="x", at_least=10),
    "interactions: above the best of ten long runs": Target(unit="%", at_most=1),
    "interactions: slowest answer": Target(unit="s", at_most=5),
    "interactions: small instances within their stated gap": Target(unit="share", at_least=1),
    "scales: the same plan, no false optimum": Target(unit="share", at_least=1),
    "HAWQ-V3: configurations that are the unique optimum": Target(unit="of 9", at_least=9),
    "MixDQ: group problems reproduced": Target(unit="of 8", at_least=8),
    "random small instances equal to exhaustive search": Target(unit="share", at_least=1),
}
# The gap that counts as a proof.
GAP = 1e-6
