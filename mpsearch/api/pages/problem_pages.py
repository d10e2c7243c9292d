"""A problem that a person meets is a page; one that a program meets stays as it is."""

from http import HTTPStatus
from typing import Final, final

from fastapi import Request, Response
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mpsearch.api.pages.places import HOME, is_page
from mpsearch.api.pages.rendering import answer_page, is_part
from mpsearch.jobs.problem import MEDIA_TYPE, Problem

_KEPT: Final = ("www-authenticate", "retry-after", "allow")


@final
class ProblemsAsPages:
    """Middleware around whatever answers with problems."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: PLR0917  # as ASGI calls it
        """Pass everything on but problems for browsers."""
        if scope["type"] != "http" or not _is_for_a_person(Request(scope)):
            await self._app(scope, receive, send)
            return
        held: Message | None = None
        body = b""

        async def checked(message: Message) -> None:
            nonlocal held, body
            if message["type"] == "http.response.start" and _is_problem(message):
                held = message
            elif held is None:
                await send(message)
            else:
                body += message.get("body", b"")
                if not message.get("more_body", False):
                    answer = _page_of(Request(scope), start=held, body=body)
                    await answer(scope, receive, send)

        await self._app(scope, receive, checked)


def _is_for_a_person(request: Request) -> bool:
    return is_page(request.url.path) and "text/html" in request.headers.get("accept", "")


def _is_problem(message: Message) -> bool:
    return MutableHeaders(scope=message).get("content-type", "").startswith(MEDIA_TYPE)


def _page_of(request: Request, *, start: Message, body: bytes) -> Response:
    problem = Problem.model_validate_json(body)
    sent = MutableHeaders(scope=start)
    headers = {name: sent[name] for name in _KEPT if name in sent}
    status = start["status"]
    if status == HTTPStatus.UNAUTHORIZED:
        if is_part(request):
            # The session has ended: the whole page asks for the key again.
            headers["HX-Refresh"] = "true"
        here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        going_on = here if request.method == "GET" else HOME
        return answer_page(
            request, "sign_in.html", status=status, headers=headers, error="", going_on=going_on
        )
    template = "problem_part.html" if is_part(request) else "problem.html"
    return answer_page(request, template, status=status, headers=headers, problem=problem)
