"""Each registered solver keeps the laws of solvers; the registry is what is tested."""

import pytest

from mpsearch.solvers import SOLVERS
from mpsearch.testing.solver_laws import SolverLaws


@pytest.mark.parametrize("name", SOLVERS)
class TestSolvers(SolverLaws):
    """Run the laws over the registry."""

    @pytest.fixture(autouse=True)
    def choose(self, name: str) -> None:
        type(self).solver = SOLVERS[name](time_limit_seconds=20.0)
