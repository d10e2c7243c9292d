"""Templates become answers: escaped, and shut in so that only our own files are loaded."""

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from fastapi import Request, Response
from jinja2 import Environment, PackageLoader, StrictUndefined

from mpsearch.api.pages.files import address_of
from mpsearch.jobs.database import LOCAL
from mpsearch.report.numbers import ABSENT, amount, plain, seconds, share

# No style and no script within a page, so that a name that comes to be one is none.
HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not `no-referrer`: with it, browsers keep from us where a form was sent from.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "private, no-store",
}


def answer_page(
    request: Request,
    name: str,
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    **context: Any,  # noqa: ANN401 - whatever the template shows
) -> Response:
    """Return a page, or a part of one, made from a template."""
    actor = request.scope.get("state", {}).get("actor")
    text = _environment().get_template(name)
    return Response(
        text.render(
            tenant=None if actor is None or actor.tenant == LOCAL else actor.tenant,
            is_inside=actor is not None,
            **context,
        ),
        status_code=status,
        media_type="text/html",
        headers={**HEADERS, **(headers or {})},
    )


def is_part(request: Request) -> bool:
    """Return whether a script of ours asks for a part of a page."""
    return request.headers.get("hx-request") == "true"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("mpsearch.api.pages"),
        # Names of layers, models and jobs come from other people.
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"absent": ABSENT, "file": address_of}
    environment.filters |= {"amount": amount, "plain": plain, "share": share, "seconds": seconds}
    # A number that JSON has no word for must not reach a script.
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    return environment
