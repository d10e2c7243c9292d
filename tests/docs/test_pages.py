"""What the pages show works: code runs, commands exist, links lead somewhere."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer import Typer
from typer.main import get_command
from typer.testing import CliRunner

from mpsearch.cli.app import COMMANDS, app

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!\!)\[[^\]]+\]\((?P<target>[^)#\s]+)(?:#[^)]*)?\)")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(page: Path, *, language: str) -> list[str]:
    return [m["code"] for m in FENCE.finditer(page.read_text()) if m["language"] == language]


def stage() -> dict[str, object]:
    """Return what the pages take for given: a model, and data that fits it."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(256, 1024), nn.ReLU(), nn.Linear(1024, 512), nn.Linear(512, 8))
    return {"__name__": "page", "model": model.eval(), "calibration": list(torch.randn(6, 8, 256))}


def commands(page: Path) -> Iterator[list[str]]:
    """Yield the words of each shell command that a page shows."""
    for code in blocks(page, language="console"):
        for line in code.splitlines():
            assert line.startswith("$ "), f"{name_of(page)} shows {line!r} without a prompt"
            yield shlex.split(line[2:], comments=True)


@pytest.mark.slow  # the README searches a plan and times it
@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page, language="python")], ids=name_of
)
def test_python_blocks_run_in_order(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    names = stage()
    for place, code in enumerate(blocks(page, language="python"), start=1):
        exec(compile(code, f"{name_of(page)}, block {place}", "exec"), names)  # noqa: S102  # ours


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_files_that_exist(page: Path) -> None:
    text = FENCE.sub("", page.read_text())
    targets = [m["target"] for m in LINK.finditer(text) if "://" not in m["target"]]
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_shell_commands_exist(page: Path) -> None:
    made = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for words in commands(page):
        if words[0] == "make":
            assert words[1] in made
        elif words[0] == "mpsearch":
            is_group = isinstance(COMMANDS[words[1]], Typer)
            command = words[1:3] if is_group else words[1:2]
            shown = CliRunner().invoke(app, [*command, "--help"])
            assert shown.exit_code == 0, words
            options = {word for word in words[2:] if word.startswith("--")}
            assert {option for option in options if option not in shown.stdout} == set()
        else:
            assert words[0] in {"pip", "git"}


def test_the_readme_shows_every_command_or_its_page_does() -> None:
    assert set(get_command(app).commands) == set(COMMANDS)  # type: ignore[attr-defined]  # a group
    shown = (ROOT / "README.md").read_text() + (ROOT / "CHANGELOG.md").read_text()
    assert {name for name in COMMANDS if name not in shown} == set()


def test_decisions_are_numbered_once_and_titled_by_their_number() -> None:
    pages = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    numbers = [page.name[:4] for page in pages]
    assert numbers == [f"{number:04}" for number in range(1, len(pages) + 1)]
    for page in pages:
        assert page.read_text().startswith(f"# {int(page.name[:4])}. "), page.name
