"""Laws of files: others' are as they were published, and all are served as what they are."""

import hashlib
import re

import pytest
from fastapi.testclient import TestClient

from mpsearch.api.pages.files import address_of, files_version, served_files


def vendored() -> dict[str, str]:
    """Return the digests that VENDORED.md names."""
    table = (served_files()["page.js"].parent / "VENDORED.md").read_text()
    return dict(re.findall(r"^\| `(\S+)` \|.*`([0-9a-f]{64})` \|$", table, re.MULTILINE))


def test_files_of_others_are_unchanged_and_licensed() -> None:
    found = vendored()
    assert set(found) == {name for name in served_files() if name.endswith(".min.js")}
    for name, digest in found.items():
        path = served_files()[name]
        assert hashlib.sha256(path.read_bytes()).hexdigest() == digest
        assert path.with_name(f"{name.partition('.')[0]}.LICENSE.txt").read_text()


@pytest.mark.parametrize("name", sorted(served_files()))
def test_a_file_is_served_as_what_it_is_and_kept(client: TestClient, name: str) -> None:
    answer = client.get(address_of(name))
    assert answer.content == served_files()[name].read_bytes()
    kind = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
    assert answer.headers["content-type"].startswith(kind[name.rpartition(".")[2]])
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "immutable" in answer.headers["cache-control"]


def test_addresses_change_with_the_files() -> None:
    assert re.fullmatch(r"/static/[0-9a-f]{12}/page\.js", address_of("page.js"))
    assert files_version() in address_of("page.js")


@pytest.mark.parametrize("name", ["VENDORED.md", "nothing.js", "..%2ffiles.py"])
def test_nothing_else_is_served(client: TestClient, name: str) -> None:
    assert client.get(f"/static/{files_version()}/{name}").status_code == 404


def test_our_own_scripts_hold_no_markup_and_run_no_text() -> None:
    for name in ("page.js", "charts.js"):
        text = served_files()[name].read_text()
        assert not re.search(r"\beval\b|innerHTML|new Function|\.cssText|https?://", text)
