"""The contract of import-linter names each part that exists, and no other."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "mpsearch"


def contracted() -> tuple[set[str], set[str]]:
    """Return the parts that the contract requires, and those it waits for."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    parts = [
        part.strip()
        for contract in settings["contracts"]
        if contract["type"] == "layers"
        for layer in contract["layers"]
        for part in re.split(r"[|:]", layer)
    ]
    waited = {part.strip("()") for part in parts if part.startswith("(")}
    return set(parts) - {f"({part})" for part in waited}, waited


def existing() -> set[str]:
    folders = {path.parent.name for path in PACKAGE.glob("*/*.py")}
    return folders | {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}


def test_a_part_that_exists_stands_without_parentheses() -> None:
    required, _ = contracted()
    assert existing() - required == set()


def test_a_part_in_parentheses_does_not_exist_yet() -> None:
    _, waited = contracted()
    assert waited & existing() == set()


def test_a_part_that_is_required_exists() -> None:
    required, _ = contracted()
    assert required - existing() == set()
