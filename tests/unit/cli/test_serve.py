"""Laws of `mpsearch serve`: it starts, or says why not."""

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from mpsearch.api.server import listen
from mpsearch.cli.serve import read_roots
from mpsearch.errors import UsageError
from mpsearch.jobs.data_folder import owned


def test_a_taken_port_says_how_to_choose_another(
    invoke: Callable[..., Result], tmp_path: Path
) -> None:
    with listen(0) as listener:
        port = listener.getsockname()[1]
        result = invoke("serve", "--data", tmp_path, "--port", port)
    assert result.exit_code == 2
    assert f"Port {port} on 127.0.0.1" in result.stderr
    assert f"--port {port + 1}" in result.stderr


def test_a_data_folder_has_one_server(invoke: Callable[..., Result], tmp_path: Path) -> None:
    with owned(tmp_path / "server.lock"):
        result = invoke("serve", "--data", tmp_path, "--port", 0)
    assert result.exit_code == 2
    assert "held by another process" in result.stderr


@pytest.mark.parametrize("queue", ["gpu", "dev:", "dev:cpu:runners"])
def test_a_queue_that_no_request_can_name_is_refused(
    invoke: Callable[..., Result], tmp_path: Path, queue: str
) -> None:
    result = invoke("worker", "--data", tmp_path, "--queue", queue)
    assert result.exit_code == 2
    assert f"Queue '{queue}'" in result.stderr


@pytest.mark.parametrize("text", ["models", "=/tmp", "a/b=/tmp", "models=/nowhere/at/all"])
def test_a_root_that_cannot_be_used_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="NAME=FOLDER"):
        read_roots([text])


def test_roots_are_folders_by_name(tmp_path: Path) -> None:
    assert read_roots([f"a={tmp_path}", f"b={tmp_path}"]) == {"a": tmp_path, "b": tmp_path}
    with pytest.raises(UsageError, match="new"):
        read_roots([f"a={tmp_path}", f"a={tmp_path}"])
