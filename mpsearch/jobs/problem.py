"""Errors as other programs read them: problem details of RFC 9457."""

import re
from typing import Annotated, Final, final

from pydantic import BaseModel, Field

from mpsearch.errors import InfeasibleBudgetError, MpsearchError, UsageError

MEDIA_TYPE: Final = "application/problem+json"
_PREFIX: Final = "urn:mpsearch:problem:"


@final
class FieldProblem(BaseModel):
    """What is wrong with one field of a request."""

    pointer: Annotated[str, Field(examples=["/budgets"])]
    detail: str


@final
class Problem(BaseModel):
    """An error; `type` names its kind for programs, `detail` says what to do about it."""

    type: Annotated[str, Field(examples=["urn:mpsearch:problem:budget"])]
    title: str
    status: int | None = None
    detail: str
    errors: tuple[FieldProblem, ...] | None = None
    smallest: Annotated[
        dict[str, float] | None,
        Field(description="Of a budget that no plan keeps: each budget's smallest value."),
    ] = None


def problem_named(name: str, *, title: str, detail: str, status: int | None = None) -> Problem:
    """Return a problem of a kind of our own."""
    return Problem(type=_PREFIX + name, title=title, detail=detail, status=status)


def problem_of(error: MpsearchError, *, status: int | None = None) -> Problem:
    """Return an error of ours as a problem.

    Example:
        >>> from mpsearch.errors import BudgetError
        >>> problem_of(BudgetError("Budget latency=4 has no unit.")).type
        'urn:mpsearch:problem:budget'
    """
    words = re.findall(r"[A-Z][a-z]+", type(error).__name__.removesuffix("Error"))
    title = "The request cannot be right" if isinstance(error, UsageError) else "No result"
    problem = problem_named("-".join(words).lower(), title=title, detail=str(error), status=status)
    if isinstance(error, InfeasibleBudgetError):
        extra = {"title": "No plan keeps the budgets", "smallest": error.smallest}
        return problem.model_copy(update=extra)
    return problem


def internal_problem(detail: str, *, status: int | None = None) -> Problem:
    """Return the problem of a fault that is ours."""
    return problem_named("internal", title="The server failed", detail=detail, status=status)
