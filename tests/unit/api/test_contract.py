"""The service answers as its OpenAPI document says, to good and bad requests alike."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
import uvicorn
from fastapi.testclient import TestClient

from benchmarks.rest.contract import contract_failures
from benchmarks.waiting import PATIENCE_SECONDS, waited_for
from mpsearch.api.app import build_app
from mpsearch.api.document import document
from mpsearch.api.server import listen, url_of
from mpsearch.api.settings import Limits, Settings
from mpsearch.jobs.data_folder import DataFolder
from mpsearch.jobs.job import Job
from mpsearch.jobs.keys import Scope

DOCUMENT: Final = Path(__file__).parents[3] / "docs" / "openapi.json"


@pytest.fixture
def url(client: TestClient) -> Iterator[str]:
    """Serve the application over a real socket; its data folder is open already."""
    with served(client.app) as place:
        yield place


@contextmanager
def served(application: Any) -> Iterator[str]:  # noqa: ANN401 - an application of ASGI
    config = uvicorn.Config(application, log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    with listen(0) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        waited_for(lambda: server.started, "a server that answers")
        yield url_of(listener)
        server.should_exit = True
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()


def test_no_answer_is_undocumented_or_a_fault(
    url: str, finished: Callable[..., Job], tmp_path: Path
) -> None:
    found, requests = contract_failures(url, job_id=finished().id, examples=3, folder=tmp_path)
    assert not found, "\n".join(found)
    assert requests > 100


def test_the_document_is_the_one_that_is_checked_in() -> None:
    assert json.loads(document()) == json.loads(DOCUMENT.read_text()), (
        "Run `python -m mpsearch.api.document docs/openapi.json`, and read what has changed."
    )


@pytest.mark.parametrize("has_key", [True, False])
def test_no_answer_is_undocumented_or_a_fault_where_keys_are_asked_for(
    settings: Settings, tmp_path: Path, *, has_key: bool
) -> None:
    limits = Limits(failures_per_second=1e6, failures_burst=10**6)
    own = replace(settings, data=DataFolder(path=tmp_path / "data"), limits=limits)
    with TestClient(build_app(own), base_url="http://127.0.0.1") as running:
        application: Any = running.app
        service = application.state.service
        scopes = (Scope.READ, Scope.WRITE, Scope.METRICS)
        key, text = service.keys.create("a", scopes=scopes)
        job = service.store.of(key.actor).add({})
        with served(application) as url:
            found, requests = contract_failures(
                url,
                job_id=job.id,
                examples=2,
                folder=tmp_path,
                key=text if has_key else None,
                document=str(DOCUMENT),
            )
    assert not found, "\n".join(found)
    assert requests > 100
