"""The files that pages are made of, under a name that changes with them: kept for ever."""

import hashlib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Final

from fastapi import APIRouter, Response
from fastapi.responses import FileResponse

from mpsearch.api.pages.places import STATIC
from mpsearch.errors import AbsentError

router = APIRouter(include_in_schema=False)

_TYPES: Final = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_HEADERS: Final = {
    "Cache-Control": "public, max-age=31536000, immutable",
    "X-Content-Type-Options": "nosniff",
}


@cache
def served_files() -> Mapping[str, Path]:
    """Return every file that is served, by its name; the report's style is that of pages, too."""
    own = Path(str(files("mpsearch.api.pages"))) / "static"
    found = {path.name: path for path in sorted(own.iterdir()) if path.suffix in _TYPES}
    return {**found, "report.css": Path(str(files("mpsearch.report"))) / "templates" / "style.css"}


@cache
def files_version() -> str:
    """Return a text that differs where any of the files does."""
    digest = hashlib.sha256()
    for path in served_files().values():
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def address_of(name: str) -> str:
    """Return where a file is served."""
    assert name in served_files()
    return f"{STATIC}{files_version()}/{name}"


@router.get(f"{STATIC}{{version}}/{{name}}")
def get_file(version: str, name: str) -> Response:  # noqa: ARG001  # it is only there to differ
    """Return a file."""
    path = served_files().get(name)
    if path is None:
        raise AbsentError(
            f"File {name!r} is not known. Expected one that a page names. Load the page again."
        )
    return FileResponse(path, media_type=_TYPES[path.suffix], headers=_HEADERS)
