"""What a service answers instead, as errors of ours."""

import httpx2

from mpsearch.errors import InfeasibleBudgetError, MpsearchError, ServiceError


def problem_in(answer: httpx2.Response) -> MpsearchError:
    """Return the problem of RFC 9457 that an answer holds."""
    try:
        problem = answer.json()
        detail, kind = str(problem["detail"]), str(problem["type"]).rpartition(":")[2]
    except (ValueError, KeyError, TypeError):
        return ServiceError(
            f"{answer.url} answered {answer.status_code}, and not as the service does. Expected a "
            "problem. Check that the address is that of `mpsearch serve`.",
            status=answer.status_code,
        )
    if problem.get("smallest"):
        return InfeasibleBudgetError(detail, smallest=problem["smallest"])
    fields = "".join(f" {each['pointer']}: {each['detail']}" for each in problem.get("errors", ()))
    return ServiceError(detail + fields, status=answer.status_code, kind=kind)


def unreachable(url: str, error: Exception) -> ServiceError:
    """Return the error of a service that does not answer."""
    return ServiceError(
        f"{url} cannot be reached: {error}. Expected a service. Start it with `mpsearch serve`, or "
        "give its address with --url."
    )
