"""The service answers as its OpenAPI document says, to good and bad requests alike."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvicorn
from fastapi.testclient import TestClient

from benchmarks.rest.contract import contract_failures
from mpsearch.api.document import document
from mpsearch.api.server import listen, url_of
from mpsearch.jobs.job import Job


@pytest.fixture
def url(client: TestClient) -> Iterator[str]:
    """Serve the application over a real socket; its data folder is open already."""
    config = uvicorn.Config(client.app, log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    with listen(0) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield url_of(listener)
        server.should_exit = True
        thread.join()


def test_no_answer_is_undocumented_or_a_fault(
    url: str, finished: Callable[..., Job], tmp_path: Path
) -> None:
    found, requests = contract_failures(url, job_id=finished().id, examples=3, folder=tmp_path)
    assert not found, "\n".join(found)
    assert requests > 100


def test_the_document_is_the_one_that_is_checked_in() -> None:
    checked_in = Path(__file__).parents[3] / "docs" / "openapi.json"
    assert json.loads(document()) == json.loads(checked_in.read_text()), (
        "Run `python -m mpsearch.api.document docs/openapi.json`, and read what has changed."
    )
