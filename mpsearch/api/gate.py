"""The gate before every route: whoever has no valid key of the right scope stays outside.

It stands before routing, so that a new route cannot be forgotten. Without any key, the server
is open to this machine; a browser that has signed in shows a cookie. In both cases pages of
other sites must not act in the user's name.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, final
from urllib.parse import urlsplit

from fastapi import Request, Response
from fastapi.concurrency import run_in_threadpool
from sqlalchemy.exc import DBAPIError
from starlette.types import ASGIApp, Receive, Scope, Send

from mpsearch.api.pace import Pace
from mpsearch.api.pages.places import is_open
from mpsearch.api.problems import as_response, of_database
from mpsearch.api.session import COOKIE, key_id_of
from mpsearch.api.settings import Settings
from mpsearch.jobs.database import LOOPBACK, Actor
from mpsearch.jobs.keys import Key, KeyStore
from mpsearch.jobs.keys import Scope as KeyScope
from mpsearch.jobs.problem import problem_named

_SAFE: Final = frozenset({"GET", "HEAD"})
# They compute and change nothing.
_READING: Final = frozenset({"/v1/plans:solve", "/v1/jobs:validate"})
_BEARER: Final = "bearer "
_CALLER: Final = "actor"


@final
@dataclass(frozen=True, kw_only=True)
class Refusal(Exception):  # noqa: N818  # it is an answer, not a fault
    """Why a request is not let in."""

    status: HTTPStatus
    name: str
    detail: str
    headers: Mapping[str, str]

    @property
    def response(self) -> Response:
        """Return it as an answer."""
        phrase = self.status.phrase
        problem = problem_named(self.name, title=phrase, detail=self.detail, status=self.status)
        return as_response(problem, self.headers)


@final
class Gate:
    """Middleware that lets requests in; what it lets in knows for whom it acts."""

    def __init__(self, app: ASGIApp, *, settings: Settings) -> None:
        limits = settings.limits
        self._app = app
        self._is_local = settings.is_local
        self._requests = Pace(per_second=limits.requests_per_second, burst=limits.burst)
        self._failures = Pace(per_second=limits.failures_per_second, burst=limits.failures_burst)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: PLR0917  # as ASGI calls it
        """Answer with a refusal, or pass the request on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        try:
            actor = await self._let_in(request, keys=scope["app"].state.service.keys)
        except Refusal as refusal:
            await refusal.response(scope, receive, send)
            return
        except DBAPIError as error:
            answer = of_database(error)
            if answer is None:
                raise
            await answer(scope, receive, send)
            return
        if actor is not None:
            scope.setdefault("state", {})[_CALLER] = actor
        await self._app(scope, receive, send)

    async def _let_in(self, request: Request, *, keys: KeyStore) -> Actor | None:
        """Return for whom a request acts, None for a stranger at an open door."""
        shown = request.headers.get("authorization")
        if shown is None and self._is_local and not await run_in_threadpool(keys.are_there):
            _check_same_site(request)
            return LOOPBACK
        address = request.client.host if request.client else "unknown"
        _check_pace(self._failures, address)
        if is_open(request.url.path):
            if request.method not in _SAFE:
                # Each attempt counts: who signs in seldom never notices.
                self._failures.take(address)
                _check_shows_site(request)
            return None
        key = await run_in_threadpool(_key_of, request, keys)
        if key is None:
            self._failures.take(address)
            raise _unknown()
        _check_pace(self._requests, key.id)
        self._requests.take(key.id)
        needed = scope_needed(request.method, request.url.path)
        if needed not in key.scopes:
            raise _out_of_scope(needed)
        return key.actor


def actor_of(request: Request) -> Actor:
    """Return for whom a request acts; one that did not pass the gate has nobody."""
    actor = request.scope["state"][_CALLER]
    assert isinstance(actor, Actor)
    return actor


def scope_needed(method: str, path: str) -> KeyScope:
    """Return what a key must be good for."""
    if path == "/metrics":
        return KeyScope.METRICS
    return KeyScope.READ if method in _SAFE or path in _READING else KeyScope.WRITE


def _key_of(request: Request, keys: KeyStore) -> Key | None:
    """Return the key that a request shows, or that its browser's session was opened with."""
    shown = request.headers.get("authorization")
    if shown is not None:
        is_bearer = shown.lower().startswith(_BEARER)
        return keys.find(shown[len(_BEARER) :]) if is_bearer else None
    key_id = key_id_of(request.cookies.get(COOKIE, ""), secret=keys.pepper, now=time.time())
    key = None if key_id is None else keys.still_valid(key_id)
    if key is not None:
        _check_shows_site(request)
    return key


def _check_shows_site(request: Request) -> None:
    """Refuse a change of which a browser does not say that a page of ours asks for it.

    Cookies go along by themselves, so that silence is no sign of a program.
    """
    if request.method not in _SAFE and not {"origin", "sec-fetch-site"} & set(request.headers):
        raise _cross_site()
    _check_same_site(request)


def _check_same_site(request: Request) -> None:
    """Refuse what a browser sends for a page of another site, unless its user follows a link."""
    sent = request.headers
    if request.method in _SAFE and sent.get("sec-fetch-dest") == "document":
        return
    origin = sent.get("origin")
    foreign = origin is not None and urlsplit(origin).netloc != sent.get("host")
    if foreign or sent.get("sec-fetch-site", "none") not in {"same-origin", "none"}:
        raise _cross_site()


def _cross_site() -> Refusal:
    return Refusal(
        status=HTTPStatus.FORBIDDEN,
        name="cross-site",
        detail="The request comes from a page of another site. Expected a program, or a page "
        "of this server. Nothing was done.",
        headers={},
    )


def _check_pace(pace: Pace, name: str) -> None:
    wait = pace.wait(name)
    if wait > 0:
        raise Refusal(
            status=HTTPStatus.TOO_MANY_REQUESTS,
            name="too-many-requests",
            detail=f"Requests come too fast. Expected the next one in {wait:.2f} s or later. Wait.",
            headers={"Retry-After": str(math.ceil(wait))},
        )


def _unknown() -> Refusal:
    return Refusal(
        status=HTTPStatus.UNAUTHORIZED,
        name="unauthorized",
        detail="There is no valid key with the request. Expected the header 'Authorization: Bearer "
        "mps_...'. The operator makes keys with `mpsearch keys create`.",
        headers={"WWW-Authenticate": "Bearer"},
    )


def _out_of_scope(needed: KeyScope) -> Refusal:
    return Refusal(
        status=HTTPStatus.FORBIDDEN,
        name="forbidden",
        detail=f"The key is not good for this. Expected one of scope {str(needed)!r}. Use "
        "another key.",
        headers={},
    )
