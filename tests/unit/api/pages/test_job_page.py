"""Laws of a job's page: it shows what the tables say, and every chart is a table, too."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from mpsearch.api.pages.choices import STEPS, choice_named, choices_of, slider_of
from mpsearch.api.pages.difference import difference
from mpsearch.api.pages.result import result_of
from mpsearch.api.service import Service
from mpsearch.core.plan import Plan
from mpsearch.jobs.job import Job
from mpsearch.workflow.solve import solve_tables
from tests.unit.api.pages.conftest import (
    BUDGETS,
    HTML,
    NAMES,
    check_strict,
    tables,
    tags_of,
    wanted,
)

HOSTILE = "</script><script>alert(1)</script>"


def data_of(html: str) -> list[dict[str, Any]]:
    """Return what is drawn, chart by chart."""
    found = re.findall(
        r'data-chart="(\w+)".*?<script type="application/json">(.*?)</script>', html, re.DOTALL
    )
    return [{"kind": kind, **json.loads(text)} for kind, text in found]


def test_the_page_is_strict_and_shut_in(client: TestClient, shown: Callable[..., Job]) -> None:
    answer = client.get(f"/jobs/{shown().id}")
    assert answer.status_code == 200
    check_strict(answer.text)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["cache-control"] == "private, no-store"


def test_every_chart_has_a_label_and_a_table_with_its_numbers(
    client: TestClient, shown: Callable[..., Job]
) -> None:
    html = client.get(f"/jobs/{shown().id}").text
    charts = [tag for tag in tags_of(html) if "data-chart" in tag.attributes]
    assert {tag.attributes["data-chart"] for tag in charts} == {"front", "layers", "agreement"}
    assert all(tag.attributes["role"] == "img" and tag.attributes["aria-label"] for tag in charts)
    for drawn in data_of(html):
        for point in drawn.get("points", ()):
            title = point["text"].splitlines()[0]
            assert f">{title}<" in html, title
    picks = {tag.attributes["data-pick"] for tag in tags_of(html) if "data-pick" in tag.attributes}
    front = next(drawn for drawn in data_of(html) if drawn["kind"] == "front")
    assert picks == {point["pick"] for point in front["points"]}


def test_a_hostile_layer_is_only_a_name(client: TestClient, shown: Callable[..., Job]) -> None:
    job = shown(names=(HOSTILE, "a", "<img src=x onerror=alert(1)>", "b"))
    for end in ("", "/chosen?limit=0", "/difference?one=returned&other=front-0"):
        html = client.get(f"/jobs/{job.id}{end}").text
        check_strict(html)
        assert "alert(1)" in html
        assert not [tag for tag in tags_of(html) if tag.tag == "img"]
    assert any(HOSTILE in text for drawn in data_of(client.get(f"/jobs/{job.id}").text)
               for text in drawn.get("texts", ()))  # fmt: skip


@pytest.mark.parametrize("place", [0, 17, 100, STEPS])
def test_the_slider_solves_as_the_tables_say(
    client: TestClient, service: Service, shown: Callable[..., Job], place: int
) -> None:
    job = shown()
    slider = slider_of(result_of(job, service=service))
    assert slider is not None
    sensitivity, cost = tables(NAMES)
    limit = {"weight_bytes": f"{slider.limits[place]:.0f}B"}
    expected = solve_tables(sensitivity, (cost,), budgets=limit).plan
    answer = client.get(f"/jobs/{job.id}/plan.json?pick=limit-{place}")
    plan = answer.json()
    assert plan["assignment"] == expected.assignment
    assert plan["forecast"] == expected.forecast
    assert f'filename="plan-limit-{place}.json"' in answer.headers["content-disposition"]
    html = client.get(f"/jobs/{job.id}/chosen?limit={place}").text
    chips = re.findall(r'<span class="chip f\d">(\w+)</span>', html)
    assert chips == [expected.assignment[name] for name in NAMES]
    assert slider.labels[place] in html


def test_limits_span_the_front_and_stand_at_the_budget(
    service: Service, shown: Callable[..., Job]
) -> None:
    result = result_of(shown(), service=service)
    slider = slider_of(result)
    assert slider is not None
    assert slider.limits[0] == 10_000
    assert slider.limits[-1] == 80_000
    step = (slider.limits[-1] - slider.limits[0]) / STEPS
    assert abs(slider.limits[slider.place] - result.plan.budgets[0].limit) <= step


def test_what_was_to_be_least_is_what_the_slider_moves(
    client: TestClient, service: Service, shown: Callable[..., Job]
) -> None:
    job = shown(over="latency", max_drop=0.5, minimise="latency")
    slider = slider_of(result_of(job, service=service))
    assert slider is not None
    assert slider.title == "Latency"
    sensitivity, cost = tables(NAMES)
    limits = {"latency": f"{slider.limits[120]:.0f}ns", **BUDGETS}
    expected = solve_tables(sensitivity, (cost,), budgets=limits).plan
    plan = client.get(f"/jobs/{job.id}/plan.json?pick=limit-120").json()
    assert plan["assignment"] == expected.assignment
    assert client.get(f"/jobs/{job.id}/chosen?limit=0").status_code == 200


def test_a_limit_that_no_plan_keeps_is_told_in_place(
    client: TestClient, shown: Callable[..., Job]
) -> None:
    # A front over bytes, read as one over latency: its limits are nanoseconds that nothing reaches.
    job = shown(max_drop=0.5, minimise="latency")
    answer = client.get(f"/jobs/{job.id}/chosen?limit=0", headers={**HTML, "hx-request": "true"})
    assert answer.status_code == 422
    assert "No plan keeps the budgets" in answer.text


def test_every_pick_shows_its_own_plan(
    client: TestClient, service: Service, shown: Callable[..., Job]
) -> None:
    job = shown()
    for pick, choice in choices_of(result_of(job, service=service)).items():
        plan = client.get(f"/jobs/{job.id}/plan.json?pick={pick}").json()
        assert plan["assignment"] == dict(choice.plan.assignment)
        html = client.get(f"/jobs/{job.id}/chosen?pick={pick}").text
        assert f'data-chosen="{pick}"' in html
        assert choice.title in html
        page = client.get(f"/jobs/{job.id}?pick={pick}").text
        assert f'data-chosen="{pick}"' in page


@pytest.mark.parametrize(
    "pick", ["front-99", "tried-0", f"limit-{STEPS + 1}", "x", "front", "limit"]
)
def test_an_unknown_pick_is_a_readable_page(
    client: TestClient, shown: Callable[..., Job], pick: str
) -> None:
    job = shown()
    answer = client.get(f"/jobs/{job.id}?pick={pick}", headers=HTML)
    if pick == "limit":
        assert answer.status_code == 200  # the widest limit
        return
    assert answer.status_code == 404
    assert "Expected one that the page shows" in answer.text


def test_a_difference_is_what_differs(service: Service, shown: Callable[..., Job]) -> None:
    result = result_of(shown(), service=service)
    one, other = choice_named(result, "front-0"), choice_named(result, "returned")
    found = difference(one, other, result=result)
    by_hand = [name for name in NAMES if one.plan.assignment[name] != other.plan.assignment[name]]
    assert [layer.name for layer in found.layers] == by_hand != []
    same = difference(one, one, result=result)
    assert (same.layers, {total.change for total in same.totals}) == ((), {"0"})
    back = difference(other, one, result=result)
    assert [total.change[0] for total in back.totals] != [total.change[0] for total in found.totals]
    sensitivity, cost = tables(NAMES)
    bytes_ = [cost.spend(dict(each.plan.assignment))["weight_bytes"] for each in (one, other)]
    assert found.totals[1].change == f"+{(bytes_[1] - bytes_[0]) / 1000:.1f} kB"
    assert sensitivity.layers == NAMES


def test_measured_numbers_stand_beside_predicted_ones(
    client: TestClient, shown: Callable[..., Job]
) -> None:
    html = client.get(f"/jobs/{shown().id}").text
    assert "✓ held" in html
    assert "✕ broken" in html
    agreement = [drawn for drawn in data_of(html) if drawn["kind"] == "agreement"]
    assert len(agreement) == 2
    loss, latency = agreement
    assert all(point["place"][0] < point["place"][1] for point in loss["points"])
    assert all(point["place"][0] == point["place"][1] for point in latency["points"])
    assert "+10.0 %" in html


def test_downloads_are_what_is_there(client: TestClient, shown: Callable[..., Job]) -> None:
    job = shown()
    html = client.get(f"/jobs/{job.id}").text
    links = [str(tag.attributes["href"]) for tag in tags_of(html)
             if str(tag.attributes.get("href")).startswith("/v1/")]  # fmt: skip
    assert f"/v1/jobs/{job.id}/model" not in links
    assert len(links) == 6
    for link in links:
        assert client.get(link).status_code == 200


def test_colours_are_those_of_the_report(client: TestClient, shown: Callable[..., Job]) -> None:
    answer = client.get(f"/jobs/{shown().id}/formats.css")
    assert answer.headers["content-type"].startswith("text/css")
    assert "#64748b" in answer.text
    assert "prefers-color-scheme: dark" in answer.text
    assert ".f2 { --c: var(--f2); }" in answer.text


def test_a_job_without_a_result_says_so(client: TestClient, service: Service) -> None:
    job = service.store.add(wanted())
    for end in ("chosen", "difference", "plan.json", "formats.css"):
        answer = client.get(f"/jobs/{job.id}/{end}", headers=HTML)
        assert answer.status_code == 409
        assert "has no result" in answer.text


def test_a_damaged_result_or_a_link_in_it_is_not_shown(
    client: TestClient, service: Service, shown: Callable[..., Job]
) -> None:
    damaged, linked = shown(), shown()
    (service.settings.data.result(damaged.id) / "result.json").write_text("{}")
    folder = service.settings.data.result(linked.id)
    (folder / "result.json").rename(folder.parent / "elsewhere.json")
    (folder / "result.json").symlink_to(folder.parent / "elsewhere.json")
    for job in (damaged, linked):
        answer = client.get(f"/jobs/{job.id}", headers=HTML)
        assert answer.status_code == 404
        assert "cannot be shown" in answer.text
        assert str(service.settings.data.path) not in answer.text


def test_a_plan_from_the_page_reads_back(client: TestClient, shown: Callable[..., Job]) -> None:
    from mpsearch.core.files import plan_from_dict

    answer = client.get(f"/jobs/{shown().id}/plan.json?pick=front-1")
    assert isinstance(plan_from_dict(answer.json(), origin="page"), Plan)
