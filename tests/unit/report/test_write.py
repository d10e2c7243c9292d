"""Laws of the report: self-contained, harmless, complete."""

import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from pydantic import TypeAdapter

from mpsearch.core.files import to_json
from mpsearch.core.plan import Plan
from mpsearch.report import TriedPlan, write_report
from mpsearch.testing import example_result

_VOID = {"meta", "br", "img", "link", "input", "hr"}


class _Page(HTMLParser):
    """Checks that tags nest, and collects elements, texts and titles."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append(" ".join(data.split()))

    def has(self, text: str) -> bool:
        return any(text in each for each in self.texts)


def _parsed(path: Path) -> _Page:
    page = _Page()
    page.feed(path.read_text())
    assert page.open == []
    return page


def _written(folder: Path, *, blocks: int = 1, first: str = "embeddings.word_embeddings") -> Path:
    layers = example_result.graph(blocks=blocks, first=first)
    plan = example_result.plan(layers)
    write_report(
        folder / "report.html",
        plan=plan,
        sensitivity=example_result.sensitivity(layers),
        costs=(example_result.cost(layers),),
        verification=example_result.verification(plan),
        tried=example_result.tried(plan),
        front=example_result.front(plan),
        graph=layers,
        phases={"sensitivity": 61.0, "solve": 0.01, "build plans": 2.5},
        notes=("A note for the reader.",),
    )
    return folder / "report.html"


def test_the_page_asks_for_nothing_and_runs_nothing(tmp_path: Path) -> None:
    text = _written(tmp_path).read_text()
    page = _parsed(tmp_path / "report.html")
    assert not {"script", "link", "iframe", "img", "object"} & {tag for tag, _ in page.elements}
    for _, attributes in page.elements:
        assert not {"src", "href", "onclick", "onload"} & attributes.keys()
    assert "url(" not in text
    assert "@import" not in text
    assert "default-src 'none'" in text


def test_a_script_in_a_layer_name_stays_text(tmp_path: Path) -> None:
    evil = "a<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
    text = _written(tmp_path, first=evil).read_text()
    page = _parsed(tmp_path / "report.html")
    assert "<script" not in text
    assert "<img" not in text
    assert not {"script", "img"} & {tag for tag, _ in page.elements}
    assert any(evil in text for text in page.texts)  # whole, in the tooltip


def test_hostile_texts_everywhere_stay_text(tmp_path: Path) -> None:
    evil = '</title></style><script>alert(1)</script>" onmouseover="alert(1)'
    plan = Plan(
        assignment={evil: evil},
        base=evil,
        placement=evil,
        runtime=evil,
        origin=evil,
        model=evil,
        settings={evil: evil},
    )
    tried = [TriedPlan(plan=plan, is_reference=False, keeps=False, broken=evil)]
    write_report(
        tmp_path / "report.html", plan=plan, tried=tried, notes=(evil,), phases={evil: 3.0}
    )
    page = _parsed(tmp_path / "report.html")
    assert "script" not in {tag for tag, _ in page.elements}
    assert not any("onmouseover" in attributes for _, attributes in page.elements)


def test_every_layer_has_a_row_and_a_cell_in_each_lane(tmp_path: Path) -> None:
    layers = example_result.graph(blocks=2)
    _written(tmp_path, blocks=2)
    page = _parsed(tmp_path / "report.html")
    for name in layers.names:
        assert page.has(name)
    lanes = [attributes for tag, attributes in page.elements if tag == "svg"]
    assert len([lane for lane in lanes if lane.get("class", "").startswith("lane")]) == 4  # type: ignore[union-attr]  # the class of a lane is given


def test_svg_is_well_formed(tmp_path: Path) -> None:
    drawings = re.findall(r"<svg.*?</svg>", _written(tmp_path).read_text(), re.DOTALL)
    assert len(drawings) == 5
    for drawing in drawings:
        ET.fromstring(drawing)  # noqa: S314 - our own drawing


def test_what_was_promised_measured_and_chosen_is_said(tmp_path: Path) -> None:
    _written(tmp_path)
    page = _parsed(tmp_path / "report.html")
    for text in (
        "Keeps both budgets, as measured.",
        "1 of 3 forecasts did not hold: loss on validation data.",
        "6 plans were tried in the same rounds; 4 did not keep the budgets.",
        "0.0172 against 0.0181 of the next (rank 2 on base bf16).",
        "★ returned",
        "not built",
        "it did not compile",
        "over budget",
        "99.14 %",
        "exact",
        "nothing promised",
        "A note for the reader.",
        "1 min 1 s",
        "at most 18%",
        "within 0.0020 % of the optimum of the tables",
    ):
        assert page.has(text), text


def test_the_returned_plan_comes_first_among_its_rivals(tmp_path: Path) -> None:
    text = _written(tmp_path).read_text()
    body = text[text.index('class="rivals"') :]
    assert body.index("optimum on base bf16") < body.index("rank 2") < body.index("reference: w8 ")


def test_a_plan_that_is_not_the_best_is_still_first_and_says_so(tmp_path: Path) -> None:
    plan = example_result.plan(example_result.graph(blocks=1))
    mine, rival, *_ = example_result.tried(plan)
    better = replace(rival, loss=0.001)
    write_report(tmp_path / "report.html", plan=plan, tried=(better, mine))
    page = _parsed(tmp_path / "report.html")
    assert page.has("This one loses 0.0172, more than 0.00100 of rank 2 on base bf16")
    text = (tmp_path / "report.html").read_text()
    body = text[text.index('class="rivals"') :]
    assert body.index("★ returned") < body.index("rank 2")


def test_a_budget_that_is_exceeded_is_said_on_top(tmp_path: Path) -> None:
    plan = example_result.plan(example_result.graph(blocks=1))
    tight = replace(plan, budgets=(plan.budgets[0], replace(plan.budgets[1], limit=1e5)))
    write_report(
        tmp_path / "report.html", plan=tight, verification=example_result.verification(plan)
    )
    page = _parsed(tmp_path / "report.html")
    assert page.has("Over budget, as measured: latency.")
    assert page.has("✕ exceeded")
    assert page.has("too much")
    write_report(tmp_path / "report.html", plan=plan)
    assert _parsed(tmp_path / "report.html").has("Keeps both budgets, as forecast.")


def test_a_large_model_stays_small_enough_to_open(tmp_path: Path) -> None:
    assert _written(tmp_path, blocks=83).stat().st_size < 2_000_000
    _parsed(tmp_path / "report.html")


def test_a_bare_plan_is_enough(tmp_path: Path) -> None:
    write_report(tmp_path / "report.html", plan=Plan(assignment={"fc": "w8", "head": "new"}))
    page = _parsed(tmp_path / "report.html")
    assert page.has("Mixed-precision plan for 2 layers")
    assert page.has("It was not measured against others.")


def test_the_cost_table_of_the_plans_base_is_shown(tmp_path: Path) -> None:
    layers = example_result.graph(blocks=1)
    plan = example_result.plan(layers)
    cost = example_result.cost(layers)
    other = cost.__class__(**{**vars(cost), "base": "fp32"})
    write_report(tmp_path / "a.html", plan=plan, costs=(other, cost))
    write_report(tmp_path / "b.html", plan=plan, costs=cost)
    write_report(tmp_path / "c.html", plan=plan, costs=(other,))
    assert (tmp_path / "a.html").read_text() == (tmp_path / "b.html").read_text()
    assert "Latency against base" not in (tmp_path / "c.html").read_text()


def test_all_zero_negative_and_missing_losses_are_drawn(tmp_path: Path) -> None:
    layers = example_result.graph(blocks=1)
    plan = example_result.plan(layers)
    table = example_result.sensitivity(layers)
    for loss in (np.zeros_like(table.loss), -np.abs(table.loss), table.loss * np.nan):
        changed = table.__class__(**{**vars(table), "loss": loss})
        write_report(tmp_path / "report.html", plan=plan, sensitivity=changed, graph=layers)
        text = (tmp_path / "report.html").read_text()
        _parsed(tmp_path / "report.html")
        assert not re.search(r"(?:left|width|top|height|y|x)[=:]\"?-?(?:nan|inf)", text)


def test_the_same_result_gives_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    assert _written(tmp_path).read_bytes() == _written(tmp_path / "again").read_bytes()


def test_writing_a_report_loads_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from mpsearch.core.plan import Plan; "
        "from mpsearch.report import write_report; "
        f"write_report(Path({str(tmp_path)!r}) / 'r.html', plan=Plan(assignment={{'a': 'w8'}})); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_tried_plans_survive_a_file(tmp_path: Path) -> None:
    plan = example_result.plan(example_result.graph(blocks=1))
    tried = example_result.tried(plan)
    read = TypeAdapter(tuple[TriedPlan, ...]).validate_json(to_json(tried))
    assert read == tried
    write_report(tmp_path / "a.html", plan=plan, tried=tried)
    write_report(tmp_path / "b.html", plan=plan, tried=read)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_the_judgement_of_the_search_is_understood(tmp_path: Path) -> None:
    rounds = pytest.importorskip("mpsearch.search.rounds")
    contest = pytest.importorskip("mpsearch.verification.contest")
    quality = pytest.importorskip("mpsearch.verification.quality")
    layers = example_result.graph(blocks=1)
    plan = example_result.plan(layers)
    judged = rounds.Judged(
        entry=contest.Entry(
            plan=plan,
            quality=quality.Quality(loss=0.01, stderr=0.001, samples=9, fidelity={"cosine": 0.9}),
        ),
        budgets=plan.budgets,
        is_reference=False,
    )
    write_report(tmp_path / "report.html", plan=plan, tried=(judged,))
    assert _parsed(tmp_path / "report.html").has("the only one that kept every budget")


def test_a_plan_that_was_judged_and_not_timed_says_why(tmp_path: Path) -> None:
    plan = Plan(assignment={"fc": "w8"})
    other = replace(plan, assignment={"fc": "w4"})
    tried = [
        TriedPlan(
            plan=plan, is_reference=False, keeps=True, loss=0.1, amount={"weight_bytes": 9.0}
        ),
        TriedPlan(
            plan=other,
            is_reference=False,
            keeps=False,
            loss=0.4,
            amount={"weight_bytes": 5.0},
            left_out="not certified",
        ),
    ]
    write_report(tmp_path / "report.html", plan=plan, tried=tried)
    page = _parsed(tmp_path / "report.html")
    assert page.has("not certified")
    assert not page.has("over budget")
