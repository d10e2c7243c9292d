"""Laws of sessions: what was not signed here, or has ended, is none."""

import base64

from hypothesis import given
from hypothesis import strategies as st

from mpsearch.api.session import SECONDS, key_id_of, session_of


@given(key_id=st.text(max_size=40), secret=st.binary(min_size=1, max_size=32))
def test_a_session_names_its_key_until_it_ends(key_id: str, secret: bytes) -> None:
    session = session_of(key_id, secret=secret, now=100.0)
    assert key_id_of(session, secret=secret, now=99.0 + SECONDS) == key_id
    assert key_id_of(session, secret=secret, now=101.0 + SECONDS) is None
    assert key_id_of(session, secret=secret + b"x", now=100.0) is None


@given(place=st.integers(min_value=0), change=st.integers(min_value=1, max_value=255))
def test_a_session_with_any_byte_changed_is_none(place: int, change: int) -> None:
    raw = bytearray(base64.urlsafe_b64decode(session_of("k", secret=b"s", now=0.0)))
    raw[place % len(raw)] ^= change
    changed = base64.urlsafe_b64encode(bytes(raw)).decode()
    assert key_id_of(changed, secret=b"s", now=1.0) is None


@given(text=st.text(max_size=80))
def test_whatever_else_is_shown_is_none(text: str) -> None:
    assert key_id_of(text, secret=b"s", now=0.0) is None
