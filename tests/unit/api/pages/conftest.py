"""Jobs with whole results, and a server that asks for keys."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from mpsearch.api.app import build_app
from mpsearch.api.service import Service
from mpsearch.api.settings import Limits, Settings
from mpsearch.core.files import save_plan, save_table, to_json, write_atomically
from mpsearch.core.graph import Layer, LayerGraph, Op
from mpsearch.core.hardware import Device, Resource, Support
from mpsearch.core.tables import CostTable, SensitivityTable
from mpsearch.core.verification import Verification
from mpsearch.jobs.data_folder import DataFolder
from mpsearch.jobs.database import Actor
from mpsearch.jobs.job import Job, JobState
from mpsearch.report import TriedPlan
from mpsearch.workflow.report import Summary
from mpsearch.workflow.solve import frontier, solve_tables

FORMATS = ("fp32", "w8", "w4")
NAMES = ("embedding", "encoder.0", "encoder.1", "head")
BUDGETS = {"weight_bytes": "40%"}
HTML = {"accept": "text/html"}


def tables(names: tuple[str, ...]) -> tuple[SensitivityTable, CostTable]:
    """Return tables in which narrower formats cost less and hurt more, differently by layer."""
    sizes = np.arange(1, len(names) + 1)[:, None] * 1000
    loss = np.array([[0.0, 0.01, 0.3]]) * np.arange(len(names), 0, -1)[:, None] ** 2
    sensitivity = SensitivityTable(
        layers=names, formats=FORMATS, loss=loss, stderr=loss / 10, metric="m", unit="squared error"
    )
    cost = CostTable(
        layers=names,
        formats=FORMATS,
        base="fp32",
        placement="layer_inputs",
        amount={
            Resource.WEIGHT_BYTES: sizes * np.array([8, 2, 1]),
            Resource.LATENCY_NS: sizes * np.array([50, 30, 20]),
        },
        constant={},
        support=((Support.NATIVE,) * 3,) * len(names),
        device=Device(name="cpu", runtime="openvino", threads=1),
    )
    return sensitivity, cost


def save_result(folder: Path, *, names: tuple[str, ...], over: str) -> None:
    """Write what a search of a few layers leaves, with a front over a resource."""
    sensitivity, cost = tables(names)
    save_table(sensitivity, folder / "sensitivity.npz")
    save_table(cost, folder / "costs-fp32-layer_inputs.npz")
    plan = solve_tables(sensitivity, (cost,), budgets=BUDGETS).plan
    reference = replace(
        solve_tables(sensitivity, (cost,), budgets={"weight_bytes": "13%"}).plan,
        origin="reference: all in w4",
    )
    front = frontier(sensitivity, (cost,), resource=over, points=6)
    tried = tuple(
        TriedPlan(
            plan=each,
            is_reference=each is reference,
            keeps=True,
            amount={name: value for name, value in each.forecast.items() if name != "loss"},
            loss=1.1 * each.forecast["loss"],
            stderr=0.01,
        )
        for each in (plan, reference)
    )
    bytes_ = plan.forecast["weight_bytes"]
    proof = (
        Verification(quantity="weight_bytes", unit="B", measured=bytes_, predicted=bytes_,
                     tolerance=0.0, limit=plan.budgets[0].limit),
        Verification(quantity="loss on validation data", unit="u", measured=0.5, predicted=0.4,
                     tolerance=0.01, interval=(0.45, 0.55), passed=False),
    )  # fmt: skip
    layers = tuple(
        Layer(name=name, op=Op.LINEAR, weight_shape=(10, 100 * place), input_shape=(1, 10),
              output_shape=(1, 10), macs=1, inputs_from="x")
        for place, name in enumerate(names, start=1)
    )  # fmt: skip
    summary = Summary(
        verification=proof,
        tried=tried,
        front=front,
        graph=LayerGraph(layers=layers, edges=(), fingerprint="f"),
        phases={},
        notes=(),
    )
    summary.save(folder)
    save_plan(plan, folder / "plan.json")
    write_atomically(folder / "frontier.json", to_json(front).encode())
    write_atomically(folder / "verification.json", to_json(proof).encode())
    write_atomically(folder / "report.html", b"<!doctype html><title>x</title>")


def wanted(path: str = "minilm") -> dict[str, Any]:
    """Return a request as it is stored."""
    return {"model": {"root": "r", "path": path}, "budgets": BUDGETS}


def with_result(
    service: Service,
    *,
    names: tuple[str, ...] = NAMES,
    actor: Actor | None = None,
    path: str = "minilm",
    over: str = "weight_bytes",
    **more: object,
) -> Job:
    """Return a job that succeeded; `more` is what else was asked for."""
    store = service.store if actor is None else service.store.of(actor)
    job = store.add({**wanted(path), **more})
    save_result(service.settings.data.result(job.id), names=names, over=over)
    store.start(job.id)
    store.finish(job.id, state=JobState.SUCCEEDED)
    return store.get(job.id)


@pytest.fixture
def shown(service: Service) -> Callable[..., Job]:
    """Return what makes a job that succeeded, with all that a page shows."""

    def make(**options: Any) -> Job:  # noqa: ANN401 - passed on
        return with_result(service, **options)

    return make


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """Return a client of a server that answers the world, over TLS."""
    settings = Settings(
        data=DataFolder(path=tmp_path_factory.mktemp("guarded")),
        host="0.0.0.0",  # noqa: S104  # what is tested; nothing listens
        limits=Limits(failures_per_second=1e6, failures_burst=10**6),
    )
    with TestClient(
        build_app(settings), base_url="https://service.example", raise_server_exceptions=False
    ) as running:
        yield running


@dataclass
class Found:
    """A start tag."""

    tag: str
    attributes: Mapping[str, str | None]


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[Found] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append(Found(tag=tag, attributes=dict(attrs)))


def tags_of(html: str) -> list[Found]:
    """Return every start tag, as a browser reads them."""
    reader = _Reader()
    reader.feed(html)
    return reader.found


def check_strict(html: str) -> None:
    """Hold that nothing within a page is style or script."""
    for found in tags_of(html):
        assert found.tag != "style"
        assert not [name for name in found.attributes if name == "style" or name.startswith("on")]
        if found.tag == "script":
            is_data = found.attributes.get("type") == "application/json"
            assert is_data or str(found.attributes.get("src")).startswith("/static/")
