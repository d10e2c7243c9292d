"""Laws of addresses: few are open, and going on never leaves this server."""

from urllib.parse import urljoin, urlsplit

from hypothesis import given
from hypothesis import strategies as st

from mpsearch.api.pages.places import is_open, is_own, is_page


@given(path=st.text(alphabet="/\\.:@?#abe\t\n %", max_size=12))
def test_an_own_address_stays_here_as_browsers_read_it(path: str) -> None:
    # Browsers take a backslash for a slash, and drop tabs and line breaks.
    read = "".join(path.split("\n")).replace("\t", "").replace("\\", "/")
    if is_own(path):
        assert urlsplit(urljoin("https://here.example/sign-in", read)).netloc == "here.example"


def test_open_addresses_are_pages_and_the_api_is_none() -> None:
    for path in ("/v1/jobs", "/metrics", "/openapi.json", "/healthz", "/jobs", "/statics"):
        assert not is_open(path)
        assert not is_page(path)
    for path in ("/", "/jobs/x"):
        assert is_page(path)
        assert not is_open(path)
