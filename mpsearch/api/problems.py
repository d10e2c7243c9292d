"""Every error as a problem of RFC 9457, in answers and in the OpenAPI document."""

import errno
import re
from collections.abc import Mapping, MutableMapping
from http import HTTPStatus
from typing import Any, Final, TypeAlias, final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import DBAPIError, OperationalError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mpsearch.errors import (
    AbsentError,
    ConflictError,
    MpsearchError,
    QuotaError,
    StorageError,
)
from mpsearch.jobs.problem import (
    MEDIA_TYPE,
    FieldProblem,
    Problem,
    internal_problem,
    problem_named,
    problem_of,
)

Documented: TypeAlias = dict[int | str, dict[str, Any]]

_STATUS: Final[Mapping[type[MpsearchError], int]] = {
    AbsentError: 404,
    ConflictError: 409,
    QuotaError: 429,
    StorageError: 503,
}
_MEANING: Final = {
    400: "The request is malformed.",
    401: "There is no valid key with the request.",
    403: "The key is not good for this, or a page of another site sent it.",
    404: "There is no such thing, or it lies where requests may not look.",
    409: "It does not fit the state that the thing is in.",
    413: "The body is larger than the server takes.",
    415: "The body is of another kind than documented.",
    422: "The request cannot be right; `detail` and `errors` say why.",
    429: "That is more, or more often, than allowed.",
    503: "The server cannot take jobs, or cannot reach its database or its store, now.",
    507: "The server has no room left.",
}
# What the gate answers before any route, and what any route does where the database fails.
_OF_THE_GATE: Final = (401, 403, 429, 503, 507)
_SCHEMA: Final = {"$ref": "#/components/schemas/Problem"}
# Pydantic's own report would repeat what was sent, which can be large.
_LONGEST_DETAIL: Final = 500
_SECONDS_UNTIL_IT_IS_BACK: Final = 5
_MOST_ERRORS: Final = 20


def documented(*statuses: int) -> Documented:
    """Return the entries of an OpenAPI operation for errors with these statuses."""
    return {
        status: {"description": _MEANING[status], "content": {MEDIA_TYPE: {"schema": _SCHEMA}}}
        for status in statuses
    }


def answer_with_problems(app: FastAPI) -> None:
    """Let an application answer every error as a problem."""
    app.add_exception_handler(MpsearchError, _on_our_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(OSError, _on_system_error)
    app.add_exception_handler(DBAPIError, _on_database_error)
    app.add_exception_handler(Exception, _on_fault)


def as_response(problem: Problem, headers: Mapping[str, str] | None = None) -> Response:
    """Return a problem as the answer with its status."""
    assert problem.status is not None
    return Response(
        problem.model_dump_json(exclude_none=True),
        status_code=problem.status,
        headers=dict(headers or {}),
        media_type=MEDIA_TYPE,
    )


async def _on_our_error(request: Request, error: Exception) -> Response:  # noqa: ARG001 - as FastAPI calls it
    assert isinstance(error, MpsearchError)
    headers = {"Retry-After": str(_SECONDS_UNTIL_IT_IS_BACK)}
    problem = problem_of(error, status=_STATUS.get(type(error), 422))
    return as_response(problem, headers if isinstance(error, StorageError) else None)


async def _on_invalid_request(request: Request, error: Exception) -> Response:  # noqa: ARG001 - as FastAPI calls it
    assert isinstance(error, RequestValidationError)
    fields = tuple(
        FieldProblem(
            pointer="/" + "/".join(str(part) for part in item["loc"][1:])[:_LONGEST_DETAIL],
            detail=str(item["msg"])[:_LONGEST_DETAIL],
        )
        for item in error.errors()[:_MOST_ERRORS]
    )
    malformed = any(item["type"] == "json_invalid" for item in error.errors())
    problem = problem_named(
        "malformed-json" if malformed else "invalid-request",
        title="The request cannot be read" if malformed else "The request cannot be right",
        detail="The body is no JSON. Expected one object as /openapi.json documents. Mend it."
        if malformed
        else f"{len(error.errors())} places of the request are not as documented. Expected what "
        "/openapi.json says. Change what `errors` names.",
        status=400 if malformed else 422,
    )
    return as_response(problem.model_copy(update={"errors": fields}))


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED and (methods := _methods_of(request)):
        headers["Allow"] = ", ".join(methods)
    return as_response(_of_status(error.status_code), headers)


def _methods_of(request: Request) -> list[str]:
    """Return every method of a documented path: a route by itself knows its own only."""
    found: set[str] = set()
    for path, operations in request.app.openapi()["paths"].items():
        pattern = re.sub(r"\\\{[a-z_]+\\\}", "[^/:]+", re.escape(path))
        if re.fullmatch(pattern, request.url.path):
            found |= {method.upper() for method in operations}
    return sorted(found)


async def _on_system_error(request: Request, error: Exception) -> Response:  # noqa: ARG001 - as FastAPI calls it
    assert isinstance(error, OSError)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return as_response(_of_status(HTTPStatus.INSUFFICIENT_STORAGE))
    raise error


async def _on_database_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, DBAPIError)
    return of_database(error) or await _on_fault(request, error)


def of_database(error: DBAPIError) -> Response | None:
    """Return the answer where the database has no room or is not there, None for other faults."""
    if "is full" in str(error.orig) or type(error.orig).__name__ == "DiskFull":
        return as_response(_of_status(HTTPStatus.INSUFFICIENT_STORAGE))
    if error.connection_invalidated or isinstance(error, OperationalError):
        headers = {"Retry-After": str(_SECONDS_UNTIL_IT_IS_BACK)}
        return as_response(_of_status(HTTPStatus.SERVICE_UNAVAILABLE), headers)
    return None


async def _on_fault(request: Request, error: Exception) -> Response:
    return as_response(
        internal_problem(
            f"{request.method} {request.url.path} ended by {type(error).__name__}. The server's "
            "log says more.",
            status=500,
        )
    )


def _of_status(status: int) -> Problem:
    phrase = HTTPStatus(status).phrase
    return problem_named(
        phrase.lower().replace(" ", "-"),
        title=phrase,
        detail=_MEANING.get(status, f"{phrase}. /openapi.json says what is answered."),
        status=status,
    )


@final
class PlainErrorsAsProblems:
    """Replaces the plain text that middlewares answer with, such as to a body over the limit."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: PLR0917  # as ASGI calls it
        """Pass everything on but such answers."""
        replaced = False

        async def checked(message: Message) -> None:
            nonlocal replaced
            if message["type"] == "http.response.start" and _is_plain_error(message):
                replaced = True
                await as_response(_of_status(message["status"]))(scope, receive, send)
            elif not replaced:
                await send(message)

        await self._app(scope, receive, checked)


def _is_plain_error(message: MutableMapping[str, Any]) -> bool:
    kind = dict(message.get("headers", ())).get(b"content-type", b"").decode()
    return bool(message["status"] >= HTTPStatus.BAD_REQUEST and kind.startswith("text/plain"))


def with_problem_schema(document: dict[str, Any]) -> dict[str, Any]:
    """Return an OpenAPI document that defines what `documented` refers to."""
    schema = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    definitions = schema.pop("$defs", {})
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas.update({"Problem": schema, **definitions})
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    # Over loopback, a server that has no keys asks for none.
    document["security"] = [{}, {"key": []}]
    for operations in document.get("paths", {}).values():
        for operation in operations.values():
            for status, entry in documented(*_OF_THE_GATE).items():
                operation["responses"].setdefault(str(status), entry)
            # FastAPI documents its own error wherever there is a parameter.
            if "application/json" in operation["responses"].get("422", {}).get("content", {}):
                del operation["responses"]["422"]
    return document
