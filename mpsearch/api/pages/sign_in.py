"""Sign in with a key, once: from then on the browser shows a session."""

import time
from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse

from mpsearch.api.pages.forms import fields_of
from mpsearch.api.pages.places import HOME, SIGN_IN, SIGN_OUT, is_own
from mpsearch.api.pages.rendering import answer_page
from mpsearch.api.service import TheService
from mpsearch.api.session import COOKIE, SECONDS, session_of

router = APIRouter(include_in_schema=False)

_SEE_OTHER: Final = 303
# A key and an address: what is longer is neither.
_LARGEST_FORM: Final = 8192


@router.get(SIGN_IN)
def get_sign_in(request: Request) -> Response:
    """Ask for a key."""
    if "actor" in request.scope.get("state", {}):
        return RedirectResponse(HOME, status_code=_SEE_OTHER)
    return answer_page(request, "sign_in.html", error="", going_on=HOME)


@router.post(SIGN_IN)
async def post_sign_in(request: Request, service: TheService) -> Response:
    """Open a session for a valid key."""
    form = await fields_of(request, largest=_LARGEST_FORM)
    going_on = form.get("next", HOME)
    key = await run_in_threadpool(service.keys.find, form.get("key", "").strip())
    if key is None:
        error = "This key is not valid. It may have been mistyped, revoked, or have expired."
        return answer_page(request, "sign_in.html", status=401, error=error, going_on=going_on)
    answer = RedirectResponse(going_on if is_own(going_on) else HOME, status_code=_SEE_OTHER)
    answer.set_cookie(
        COOKIE,
        session_of(key.id, secret=service.keys.pepper, now=time.time()),
        max_age=SECONDS,
        path=HOME,
        secure=_is_encrypted(request),
        httponly=True,
        samesite="strict",
    )
    return answer


@router.post(SIGN_OUT)
def post_sign_out(request: Request) -> Response:
    """Forget the session of this browser."""
    answer = RedirectResponse(SIGN_IN, status_code=_SEE_OTHER)
    answer.delete_cookie(
        COOKIE, path=HOME, secure=_is_encrypted(request), httponly=True, samesite="strict"
    )
    return answer


def _is_encrypted(request: Request) -> bool:
    # Who claims it without a proxy that does only loses the own cookie.
    return "https" in (request.url.scheme, request.headers.get("x-forwarded-proto"))
