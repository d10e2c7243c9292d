"""The pages in a real browser, over a real server with a real job: clicks, keys, small and dark."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.sync_api import Browser, Page, expect

from benchmarks.rest.server import Server, SmallModel
from mpsearch.jobs.keys import KeyStore, Scope, pepper_of
from mpsearch.jobs.tables import open_database
from tests.journeys.chromium import chromium, visited

PHONE: Final = {"width": 375, "height": 812}
# Where a point of the front is drawn, from the chart's own corner.
PIXEL: Final = """
([kind, place]) => echarts.getInstanceByDom(document.querySelector(`[data-chart=${kind}]`))
  .convertToPixel({ xAxisIndex: 0, yAxisIndex: 0 }, place)
"""
FOCUSED: Final = (
    "() => document.activeElement.closest('[data-pick]')?.dataset.pick ?? document.activeElement.id"
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> SmallModel:
    return SmallModel(folder=tmp_path_factory.mktemp("root")).write()


@pytest.fixture(scope="module")
def server(model: SmallModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("data"), root=model.folder) as running:
        yield running


@pytest.fixture(scope="module")
def job_id(server: Server, model: SmallModel) -> str:
    # Two formats and no refining: what is shown is the same, and sooner.
    quick = {"formats": ["w8", "w4"], "effort": 0.05}
    found = server.post({**model.request(runtime="openvino"), **quick})
    assert server.ended(found)["metadata"]["state"] == "succeeded"
    return found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture
def page(browser: Browser, server: Server, job_id: str) -> Iterator[Page]:
    with visited(
        browser, f"{server.url}/jobs/{job_id}", viewport={"width": 1280, "height": 900}
    ) as shown:
        expect(shown.locator("[data-chart] svg")).to_have_count(4)
        yield shown


def drawn(page: Page, kind: str) -> dict[str, Any]:
    """Return what a chart was given."""
    text = page.locator(f"[data-chart={kind}] + script").first.text_content()
    found: dict[str, Any] = json.loads(text or "")
    return found


def plan_of(server: Server, job_id: str, pick: str) -> dict[str, Any]:
    """Return a plan as it is downloaded."""
    answer = server.client.get(f"/jobs/{job_id}/plan.json", params={"pick": pick})
    found: dict[str, Any] = answer.raise_for_status().json()
    return found


def sideways(page: Page) -> int:
    """Return by how many pixels a page is wider than its window."""
    return int(page.evaluate("document.documentElement.scrollWidth - innerWidth"))


def test_a_click_on_the_front_picks_a_plan(page: Page, server: Server, job_id: str) -> None:
    # The cheapest one stands apart from all others.
    point = max(
        (each for each in drawn(page, "front")["points"] if each["kind"] == "front"),
        key=lambda each: float(each["place"][0]),
    )
    chart = page.locator("[data-chart=front]")
    chart.scroll_into_view_if_needed()
    corner = chart.bounding_box()
    assert corner is not None
    left, top = page.evaluate(PIXEL, ["front", point["place"]])
    page.mouse.click(corner["x"] + left, corner["y"] + top)
    pick = point["pick"]
    expect(page.locator("[data-chosen]")).to_have_attribute("data-chosen", pick)
    expect(page.locator(f"tr[data-pick={pick}]")).to_have_attribute("aria-current", "true")
    expect(page).to_have_url(re.compile(rf"pick={pick}$"))
    formats = page.locator("#chosen .layers .chip").all_inner_texts()
    assert formats == list(plan_of(server, job_id, pick)["assignment"].values())
    # A click on a layer shows its row.
    lanes = page.locator("[data-chart=layers]")
    lanes.scroll_into_view_if_needed()
    lanes.click(position={"x": 5, "y": 15})
    expect(page.locator("#layer-1")).to_have_class("found")


def test_the_slider_solves_at_once(page: Page, server: Server, job_id: str) -> None:
    slider = page.locator("#limit")
    labels = json.loads(page.locator("#limit-labels").text_content() or "")
    before = page.locator("[data-chart=layers] svg").inner_html()
    slider.fill("150")
    expect(page.locator("#limit-text")).to_have_text(labels[150])
    expect(slider).to_have_attribute("aria-valuetext", labels[150])
    expect(page.locator("#chosen-name")).to_contain_text(labels[150])
    plan = plan_of(server, job_id, "limit-150")
    assert page.locator("#chosen .layers .chip").all_inner_texts() == list(
        plan["assignment"].values()
    )
    assert page.locator("[data-chart=layers] svg").inner_html() != before
    budget = plan["budgets"][0]
    body = {"job": job_id, "budgets": {"weight_bytes": f"{budget['limit']:.0f}B"}}
    solved = server.client.post("/v1/plans:solve", json=body).raise_for_status().json()["plan"]
    assert plan["assignment"] == solved["assignment"]


def test_two_plans_are_told_apart(page: Page, server: Server, job_id: str) -> None:
    page.locator("#compare-one").select_option("front-0")
    expect(page.locator("#compare-one")).to_have_value("front-0")
    page.locator("#compare-other").select_option("returned")
    one, other = (plan_of(server, job_id, pick)["assignment"] for pick in ("front-0", "returned"))
    changed = [name for name in one if one[name] != other[name]]
    assert changed
    expect(page.locator("#difference-count")).to_have_text(
        f"{len(changed)} of {len(one)} layers have another format."
    )
    expect(page.locator("#difference .layers .name")).to_have_text(changed)


def test_all_of_it_works_by_keyboard(page: Page) -> None:
    def tab_to(place: str) -> None:
        for _ in range(80):
            page.keyboard.press("Tab")
            if page.evaluate(FOCUSED) == place:
                outline = "() => getComputedStyle(document.activeElement).outlineStyle"
                assert page.evaluate(outline) != "none"
                return
        raise AssertionError(f"{place} is not reached by the keyboard.")

    page.keyboard.press("Tab")
    assert page.evaluate("() => document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    tab_to("front-0")
    page.keyboard.press("Enter")
    expect(page.locator("[data-chosen]")).to_have_attribute("data-chosen", "front-0")
    tab_to("limit")
    page.keyboard.press("End")
    expect(page.locator("[data-chosen]")).to_have_attribute("data-chosen", "limit-200")
    tab_to("compare-other")
    before = page.locator("#compare-other").input_value()
    page.keyboard.press("ArrowDown")
    expect(page.locator("#compare-other")).not_to_have_value(before)
    expect(page.locator("#compare-other")).to_be_focused()


def test_it_is_light_and_dark(page: Page) -> None:
    painted = page.locator("[data-chart=front] svg text").first
    paper = "getComputedStyle(document.body).backgroundColor"
    page.emulate_media(color_scheme="light")
    light, ink = page.evaluate(paper), painted.get_attribute("fill")
    assert ink is not None
    page.emulate_media(color_scheme="dark")
    # Charts are painted anew, or their words would stay as dark as the paper has become.
    expect(painted).not_to_have_attribute("fill", ink)
    assert page.evaluate(paper) != light


def test_it_fits_on_a_phone(browser: Browser, server: Server, job_id: str) -> None:
    options: dict[str, Any] = {"viewport": PHONE, "is_mobile": True, "has_touch": True}
    with visited(browser, f"{server.url}/jobs/{job_id}", **options) as page:
        expect(page.locator("[data-chart] svg")).to_have_count(4)
        for summary in page.locator("summary").all():
            summary.tap()
        assert sideways(page) == 0
        page.locator("tr[data-pick=front-0] a").tap()
        expect(page.locator("[data-chosen]")).to_have_attribute("data-chosen", "front-0")
        assert sideways(page) == 0
        page.goto(server.url)
        expect(page.locator(f"#job-{job_id}")).to_be_visible()
        assert sideways(page) == 0


def test_what_a_job_left_is_downloaded(page: Page, server: Server) -> None:
    links = page.locator(".downloads a[download]")
    assert links.count() == 6
    for link in links.all():
        with page.expect_download() as waited:
            link.click()
        address = link.get_attribute("href")
        assert address is not None
        path = Path(waited.value.path())
        assert path.read_bytes() == server.client.get(address).content
        assert waited.value.suggested_filename == link.get_attribute("download")
    page.get_by_role("link", name="Report").click()
    expect(page).to_have_title(re.compile("Mixed-precision plan"))


def test_jobs_are_followed_as_they_run(browser: Browser, server: Server, model: SmallModel) -> None:
    with visited(browser, server.url) as page:
        first, second = (server.post(model.request()) for _ in range(2))
        row = page.locator(f"#job-{second}")
        expect(row).to_be_visible(timeout=20_000)
        row.get_by_role("button", name="Cancel").click()
        expect(page.locator("#confirm-title")).to_have_text("Cancel this job?")
        page.keyboard.press("Escape")
        assert server.job(second)["metadata"]["state"] == "queued"
        row.get_by_role("button", name="Cancel").click()
        page.locator("#confirm-yes").click()
        expect(page.locator("h1 + p .badge")).to_have_text("cancelled")
        page.goto(f"{server.url}/jobs/{first}")
        expect(page.locator("[data-chart=front] svg")).to_be_visible(timeout=120_000)
        page.get_by_role("button", name="Delete").click()
        page.locator("#confirm-yes").click()
        expect(page.locator("#jobs")).to_be_visible()
        expect(page.locator(f"#job-{first}")).to_have_count(0)


def test_a_key_opens_the_pages(browser: Browser, model: SmallModel, tmp_path: Path) -> None:
    with Server(tmp_path / "data", root=model.folder) as server:
        store = KeyStore(
            engine=open_database(f"sqlite:///{server.data / 'jobs.sqlite'}"),
            pepper=pepper_of(server.data),
        )
        _, text = store.create("vision", scopes=(Scope.READ, Scope.WRITE))
        with browser.new_context() as context:
            page = context.new_page()
            # Not watched: the browser itself reports the 401 that brings the form.
            page.goto(f"{server.url}/?state=failed")
            page.get_by_label("Key").fill("mps_nothing")
            page.keyboard.press("Enter")
            expect(page.get_by_role("alert")).to_contain_text("not valid")
            page.get_by_label("Key").fill(text)
            page.keyboard.press("Enter")
            expect(page.locator(".empty")).to_have_text("No job is failed.")
            assert page.url.endswith("/?state=failed")
            (cookie,) = context.cookies()
            assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
            page.get_by_role("button", name="Sign out").click()
            expect(page.get_by_label("Key")).to_be_visible()
            assert context.cookies() == []


def test_a_job_is_posted_by_keyboard_with_uploads(
    browser: Browser, server: Server, model: SmallModel
) -> None:
    # Not `visited`: the console tells of a file that was not there before, and of a form refused.
    options: dict[str, Any] = {"viewport": PHONE}
    with browser.new_context(**options) as context, context.new_page() as page:
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda said: errors.append(said.text) if "Policy" in said.text else None)
        page.goto(server.url)
        page.get_by_role("link", name="New job").press("Enter")
        assert sideways(page) == 0
        page.get_by_label("Or a model's files").set_input_files(
            [model.folder / "model" / name for name in ("config.json", "model.safetensors")]
        )
        page.get_by_label("Or samples").set_input_files(model.folder / "samples.npz")
        page.get_by_label("Task", exact=True).select_option("embedding")
        page.get_by_label("Runtime", exact=True).select_option("simulation")
        page.get_by_label("Bytes of the weights").fill("no limit")
        page.get_by_label("Formats").press("Enter")
        # What is wrong is told, and what was uploaded need not be chosen again.
        expect(page.get_by_role("alert")).to_contain_text("no limit")
        page.get_by_label("Bytes of the weights").fill("30%")
        page.get_by_label("Bytes of the weights").press("Enter")
        page.wait_for_url("**/jobs/*")
        posted = server.job(page.url.rpartition("/")[2])
        assert posted["metadata"]["state"] in {"queued", "running", "succeeded"}
        server.client.post(f"/v1/jobs/{page.url.rpartition('/')[2]}:cancel")
        assert errors == []
