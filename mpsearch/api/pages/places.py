"""Which addresses are pages, and which of them need no key."""

from typing import Final

HOME: Final = "/"
SIGN_IN: Final = "/sign-in"
SIGN_OUT: Final = "/sign-out"
JOBS: Final = "/jobs/"
NEW: Final = "/new"
STATIC: Final = "/static/"

# They hold nothing of anybody: the form to sign in, and the files that every page looks like.
_OPEN: Final = (SIGN_IN, SIGN_OUT)


def is_open(path: str) -> bool:
    """Return whether an address answers strangers.

    Example:
        >>> is_open("/static/1/pages.css"), is_open("/sign-in"), is_open("/")
        (True, True, False)
    """
    return path in _OPEN or path.startswith(STATIC)


def is_page(path: str) -> bool:
    """Return whether an address is for people: its errors are pages, too."""
    return path in (HOME, NEW) or path.startswith(JOBS) or is_open(path)


def is_own(path: str) -> bool:
    r"""Return whether an address to go on to is one of this server.

    Example:
        >>> is_own("/jobs/1?pick=front-2"), is_own("//evil.example"), is_own("/\\evil.example")
        (True, False, False)
    """
    return path.startswith("/") and path[1:2] not in ("/", "\\") and path.isprintable()
