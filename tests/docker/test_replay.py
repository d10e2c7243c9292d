"""Replaying a Dockerfile finds what would fail in an image."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

HERE = Path(__file__).parents[2] / "docker"
GOOD = """
# A program that knows one option.
ARG PYTHON=3.11
FROM python:${PYTHON} AS build
ARG PREFIX=/opt/tool
ARG VARIANT=cpu
WORKDIR /src
COPY docker/torch-cpu.txt ./
RUN test -f "torch-${VARIANT}.txt" \\
    && mkdir -p "${PREFIX}/bin" \\
    && printf '#!/bin/sh\\necho "$1 --known"' > "${PREFIX}/bin/tool" \\
    && chmod +x "${PREFIX}/bin/tool"

FROM python:${PYTHON}
ARG PREFIX=/opt/tool
COPY --from=build ${PREFIX} ${PREFIX}
RUN test -z "${VARIANT}"
ENV PATH=${PREFIX}/bin:${PATH} \\
    ONE=1
USER 10001:10001
ENTRYPOINT ["tool"]
CMD ["serve", "--known"]
"""
COMPOSE = """
services:
  api:
    command: [serve, --known, "0"]
  database:
    image: postgres
"""


@pytest.fixture(scope="module")
def module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("replay", HERE / "replay.py")
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def replayed(module: ModuleType, text: str, *, folder: Path, variant: str = "cpu") -> Any:  # noqa: ANN401 - a class of the script
    """Replay a Dockerfile of this text."""
    (folder / "Dockerfile").write_text(text)
    root = folder / "root"
    root.mkdir()
    replay = module.Replay(root, arguments={"VARIANT": variant})
    replay.run(folder / "Dockerfile")
    return replay


def test_lines_run_under_the_folder_with_the_files_own_settings(
    module: ModuleType, tmp_path: Path
) -> None:
    replay = replayed(module, GOOD, folder=tmp_path)
    assert (tmp_path / "root/opt/tool/bin/tool").is_file()
    assert (tmp_path / "root/src/torch-cpu.txt").is_file()
    assert replay.environment["ONE"] == "1"
    assert replay.environment["PATH"].split(":")[0] == str(tmp_path / "root/opt/tool/bin")
    (tmp_path / "compose.yaml").write_text(COMPOSE)
    module.check_commands(replay, tmp_path / "compose.yaml")


@pytest.mark.parametrize(
    ("line", "instead"),
    [
        ("COPY docker/torch-cpu.txt ./", ""),  # what is not copied is not there
        ("ARG VARIANT=cpu\n", ""),  # what is not declared is not known
        ('mkdir -p "${PREFIX}/bin"', "false"),
    ],
)
def test_a_line_that_fails_ends_it(
    line: str, instead: str, module: ModuleType, tmp_path: Path
) -> None:
    assert line in GOOD
    with pytest.raises(subprocess.CalledProcessError):
        replayed(module, GOOD.replace(line, instead), folder=tmp_path)


def test_another_variant_asks_for_another_file(module: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        replayed(module, GOOD, folder=tmp_path, variant="cuda")


@pytest.mark.parametrize(
    ("line", "instead", "message"),
    [
        ("USER 10001:10001", "SHELL /bin/zsh", "SHELL"),
        ("COPY --from=build ${PREFIX} ${PREFIX}", "COPY --from=build ${PREFIX} /else", "moves"),
    ],
)
def test_what_cannot_be_replayed_is_refused(
    line: str, instead: str, message: str, module: ModuleType, tmp_path: Path
) -> None:
    assert line in GOOD
    with pytest.raises(SystemExit, match=message):
        replayed(module, GOOD.replace(line, instead), folder=tmp_path)


@pytest.mark.parametrize("command", ["[serve, --unknown]", "[serve, --known, --more]"])
def test_options_that_no_command_has_are_found(
    command: str, module: ModuleType, tmp_path: Path
) -> None:
    replay = replayed(module, GOOD, folder=tmp_path)
    (tmp_path / "compose.yaml").write_text(COMPOSE.replace('[serve, --known, "0"]', command))
    with pytest.raises(SystemExit, match="unknown"):
        module.check_commands(replay, tmp_path / "compose.yaml")


def test_the_linter_has_nothing_to_say() -> None:
    linter = Path(sys.executable).parent / "hadolint"
    subprocess.run([str(linter), str(HERE / "Dockerfile")], check=True)
