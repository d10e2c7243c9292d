"""A browser's session: a signed cookie that names the key it was opened with, for some hours.

The key itself is not in it, and ends it when it is revoked or expires.
"""

import base64
import hashlib
import hmac
import json
from typing import Final

COOKIE: Final = "mps_session"
# A working day; a key is shown again on the next one.
SECONDS: Final = 12 * 3600
_SIGNATURE_BYTES: Final = 32


def session_of(key_id: str, *, secret: bytes, now: float) -> str:
    """Return a session as a text that cannot be changed."""
    content = json.dumps({"key": key_id, "until": now + SECONDS}).encode()
    return base64.urlsafe_b64encode(_signature(content, secret=secret) + content).decode()


def key_id_of(session: str, *, secret: bytes, now: float) -> str | None:
    """Return the key that `session_of` named, None where it is not ours or has ended.

    Example:
        >>> session = session_of("0123456789ab", secret=b"s", now=0.0)
        >>> key_id_of(session, secret=b"s", now=60.0)
        '0123456789ab'
        >>> key_id_of(session, secret=b"s", now=1e6), key_id_of(session, secret=b"t", now=60.0)
        (None, None)
    """
    try:
        raw = base64.b64decode(session.encode(), altchars=b"-_", validate=True)
    except ValueError:
        return None
    signature, content = raw[:_SIGNATURE_BYTES], raw[_SIGNATURE_BYTES:]
    if not hmac.compare_digest(signature, _signature(content, secret=secret)):
        return None
    told = json.loads(content)
    return str(told["key"]) if now < told["until"] else None


def _signature(content: bytes, *, secret: bytes) -> bytes:
    return hmac.new(secret, b"session\n" + content, hashlib.sha256).digest()
