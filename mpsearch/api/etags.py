"""Whether a caller has the present version already."""

from typing import Annotated, TypeAlias

from fastapi import Header

IfNoneMatch: TypeAlias = Annotated[
    str | None,
    Header(description="The ETag of an earlier answer: 304 without a body if nothing has changed."),
]
NOT_MODIFIED: dict[int | str, dict[str, object]] = {
    304: {"description": "Nothing has changed since the answer with this ETag."}
}


def etag_of(text: str) -> str:
    """Return a version as a header holds it."""
    return f'"{text}"'


def is_known(etag: str, shown: str | None) -> bool:
    """Return whether a caller's If-None-Match names this version.

    Example:
        >>> is_known('"a-1"', 'W/"a-0", "a-1"'), is_known('"a-2"', '"a-1"'), is_known('"a"', "*")
        (True, False, True)
    """
    if shown is None:
        return False
    names = [name.strip().removeprefix("W/") for name in shown.split(",")]
    return etag in names or names == ["*"]
