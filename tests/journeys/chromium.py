"""A real browser that notes whatever it complains about."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from playwright.sync_api import Browser, Page, expect, sync_playwright

# A busy machine makes a page slow, not wrong.
expect.set_options(timeout=30_000)
# Chromium says so on the console as well, but in words that change.
_WATCH: Final = """
document.addEventListener("securitypolicyviolation", (event) => {
  console.error(`forbidden by ${event.violatedDirective}: ${event.blockedURI} ${event.sample}`);
});
"""


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run the system's Chromium; nothing is downloaded."""
    program = shutil.which("chromium")
    if program is None:
        raise RuntimeError("chromium is not here. Run `apt-get install chromium`.")
    with sync_playwright() as playwright:
        # As root, which containers are, its own sandbox cannot be set up.
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def visited(browser: Browser, url: str, **options: Any) -> Iterator[Page]:  # noqa: ANN401 - Playwright's own
    """Open a page, and hold that nothing was forbidden, failed or complained about on it."""
    context = browser.new_context(**options)
    page = context.new_page()
    complaints: list[str] = []
    page.add_init_script(_WATCH)
    page.on(
        "console",
        lambda said: complaints.append(said.text) if said.type in {"error", "warning"} else None,
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "requestfailed",
        lambda request: (
            complaints.append(f"{request.url}: {request.failure}")
            if "ERR_ABORTED" not in str(request.failure)  # what a newer request replaces
            else None
        ),
    )
    page.goto(url)
    yield page
    context.close()
    assert complaints == []
