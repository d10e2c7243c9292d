"""How fast and how right the solvers are, beside HiGHS and CBC in the same run."""
