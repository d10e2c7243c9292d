"""Laws of problems: they carry what a program needs."""

from mpsearch.errors import DeploymentError, InfeasibleBudgetError
from mpsearch.jobs.problem import Problem, internal_problem, problem_of


def test_an_infeasible_budget_names_what_is_reachable() -> None:
    problem = problem_of(InfeasibleBudgetError("No plan.", smallest={"latency": 4.0}), status=422)
    assert problem.smallest == {"latency": 4.0}
    assert problem.type.endswith(":infeasible-budget")
    assert problem.status == 422


def test_a_problem_survives_json() -> None:
    problem = problem_of(DeploymentError("It does not compile."))
    assert Problem.model_validate_json(problem.model_dump_json(exclude_none=True)) == problem
    assert problem.title == "No result"


def test_our_fault_is_told_as_such() -> None:
    assert internal_problem("x", status=500).type.endswith(":internal")
