"""Laws of every command: stdout holds the answer alone, and errors become exit codes."""

import json
import logging
import math
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner, Result

from mpsearch.cli.options import Json
from mpsearch.cli.session import plain, session
from mpsearch.core.hardware import Device
from mpsearch.errors import (
    BudgetError,
    DeploymentError,
    InfeasibleBudgetError,
    MpsearchError,
    SolverError,
)


def run(body: object, *arguments: str) -> Result:
    """Run `body` as the only command of an application."""
    application = typer.Typer(pretty_exceptions_enable=False)

    @application.command()
    def command(*, as_json: Json = False) -> None:
        with session(as_json=as_json, resumes=True) as current:
            assert callable(body)
            current.answer({"value": body()}, shown="shown")

    return CliRunner().invoke(application, list(arguments))


def raising(error: BaseException) -> object:
    def body() -> None:
        raise error

    return body


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BudgetError("The budget is wrong."), 2),
        (InfeasibleBudgetError("No plan.", smallest={"latency": 4.0}), 3),
        (DeploymentError("It does not compile."), 1),
        (SolverError("It crashed."), 1),
    ],
)
def test_an_error_ends_with_its_code_and_its_message_on_stderr(
    error: MpsearchError, code: int
) -> None:
    result = run(raising(error))
    assert result.exit_code == code
    assert result.stdout == ""
    assert str(error) in result.stderr
    assert "Traceback" not in result.stderr


def test_an_error_is_json_where_json_was_asked_for() -> None:
    error = InfeasibleBudgetError("No plan.", smallest={"latency": 4.0})
    fault = json.loads(run(raising(error), "--json").stdout)["error"]
    assert fault == {
        "type": "InfeasibleBudgetError",
        "message": "No plan.",
        "exit_code": 3,
        "smallest": {"latency": 4.0},
    }


def test_an_error_shows_brackets_as_they_are() -> None:
    assert "layer [bold]x[/bold]" in run(raising(BudgetError("layer [bold]x[/bold]"))).stderr


def test_an_interrupt_ends_with_130_and_says_how_to_go_on() -> None:
    result = run(raising(KeyboardInterrupt()), "--json")
    assert result.exit_code == 130
    assert result.stdout == ""
    assert "run the same command again" in result.stderr


def test_a_missing_package_is_named_with_the_command_that_installs_it() -> None:
    result = run(raising(ModuleNotFoundError("No module named 'torch'", name="torch.nn")))
    assert result.exit_code == 2
    assert "pip install 'mpsearch[search]'" in result.stderr


def test_a_missing_module_of_our_own_is_a_bug_and_not_hidden() -> None:
    result = run(raising(ModuleNotFoundError("No module named 'mpsearch.x'", name="mpsearch.x")))
    assert isinstance(result.exception, ModuleNotFoundError)


def test_what_libraries_print_and_log_goes_to_stderr() -> None:
    def chatty() -> int:
        warnings.warn("library future", FutureWarning, stacklevel=1)
        print("library chatter")  # noqa: T201  # what libraries do
        logging.getLogger("mpsearch.cache").warning("file [x] is damaged")
        return 1

    result = run(chatty, "--json")
    assert json.loads(result.stdout) == {"value": 1}
    assert "library chatter" in result.stderr
    assert "warning: file [x] is damaged" in result.stderr
    assert "library future" not in result.stderr


def test_work_goes_on_where_its_log_has_no_room() -> None:
    program = (
        "import logging, os\n"
        "from mpsearch.cli.session import session\n"
        "with session(as_json=False, resumes=True):\n"
        "    logging.getLogger('mpsearch').warning('lost')\n"
        "    os._exit(7)\n"
    )
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run([sys.executable, "-c", program], stderr=full, check=False)
    assert done.returncode == 7


def test_without_json_the_answer_is_for_people() -> None:
    assert run(lambda: 1).stdout == "shown\n"


def test_what_c_code_prints_stays_off_stdout() -> None:
    program = (
        "import os, sys, ctypes\n"
        "from mpsearch.__main__ import _keep_stdout_for_answers\n"
        "_keep_stdout_for_answers()\n"
        "os.write(1, b'raw chatter\\n')\n"
        "ctypes.CDLL(None).puts(b'buffered chatter')\n"
        "print('answer')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "answer\n"
    assert "raw chatter" in done.stderr
    assert "buffered chatter" in done.stderr


def test_the_module_runs_as_a_command(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mpsearch", "cache", "--json"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)},
    )
    assert json.loads(done.stdout)["kinds"] == {}


def test_plain_values_hold_nothing_that_json_lacks() -> None:
    value = {
        "array": np.array([[1.0, math.nan]]),
        "number": np.float32(0.5),
        "path": Path("a"),
        1: (math.inf, True, None, "x"),
        "device": Device(name="cpu", runtime="openvino", threads=1),
    }
    assert plain(value) == {
        "array": [[1.0, None]],
        "number": 0.5,
        "path": "a",
        "1": [None, True, None, "x"],
        "device": {"name": "cpu", "runtime": "openvino", "threads": 1, "software": {}},
    }
