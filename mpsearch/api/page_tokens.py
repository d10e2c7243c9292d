"""Where a page of a list ends: a token that only this server makes, for one tenant."""

import base64
import hashlib
import hmac
import json
from dataclasses import asdict, dataclass
from typing import Final, final

from mpsearch.errors import UsageError
from mpsearch.jobs.database import Actor

_SIGNATURE_BYTES: Final = 16


@final
@dataclass(frozen=True, kw_only=True)
class Place:
    """After this job, among those of a state if there is one."""

    before: str
    state: str | None = None


def token_of(place: Place, *, secret: bytes, actor: Actor) -> str:
    """Return a place as a text that cannot be changed."""
    content = json.dumps(asdict(place)).encode()
    return base64.urlsafe_b64encode(
        _signature(content, secret=secret, actor=actor) + content
    ).decode()


def place_of(token: str, *, secret: bytes, actor: Actor) -> Place:
    """Return the place that `token_of` wrote.

    Raises:
        UsageError: It is not of this server and tenant.
    """
    try:
        raw = base64.b64decode(token.encode(), altchars=b"-_", validate=True)
    except ValueError:
        raw = b""
    signature, content = raw[:_SIGNATURE_BYTES], raw[_SIGNATURE_BYTES:]
    if not hmac.compare_digest(signature, _signature(content, secret=secret, actor=actor)):
        raise UsageError(
            "The page token is not one of this server. Expected `next_page_token` of the page "
            "before, unchanged. List from the start."
        )
    return Place(**json.loads(content))


def _signature(content: bytes, *, secret: bytes, actor: Actor) -> bytes:
    message = f"page of {actor.tenant}\n".encode() + content
    return hmac.new(secret, message, hashlib.sha256).digest()[:_SIGNATURE_BYTES]
