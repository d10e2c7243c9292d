"""What is built installs and works where the checkout is not."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).parents[2]
# Plans a two-layer problem with the installed package and says where it was imported from.
PROGRAM = """
import pathlib, pkgutil, mpsearch
from mpsearch.core.formats import format_named
assert format_named("w8a8").activation is not None
print(pathlib.Path(mpsearch.__file__).parent)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    (name,) = WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    return Path(name)


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*command, "--target", str(folder), str(wheel)], check=True)
    return folder


def run(*command: str, site: Path, cwd: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_wheel_holds_every_file_of_the_package_and_no_other(wheel: Path) -> None:
    expected = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "mpsearch").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    found = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert found == expected
    assert "mpsearch/py.typed" in found


def test_the_wheel_carries_licence_and_readme(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert any(name.endswith("licenses/LICENSE") for name in names)
    metadata = next(name for name in names if name.endswith(".dist-info/METADATA"))
    assert "# mpsearch" in zipfile.ZipFile(wheel).read(metadata).decode()


def test_the_installed_package_works_outside_the_checkout(installed: Path, tmp_path: Path) -> None:
    origin = run(sys.executable, "-c", PROGRAM, site=installed, cwd=tmp_path)
    assert Path(origin) == installed / "mpsearch"


def test_the_installed_command_answers(installed: Path, tmp_path: Path) -> None:
    help_text = run(str(installed / "bin" / "mpsearch"), "--help", site=installed, cwd=tmp_path)
    assert "search" in help_text
