"""House rules that no linter knows."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = sorted((ROOT / "mpsearch").rglob("*.py"))
CODE = sorted(
    path
    for folder in ("mpsearch", "tests", "benchmarks", "examples")
    for path in (ROOT / folder).rglob("*.py")
)
# Enumerations are final by the language, errors are caught by their bases.
OPEN_BASES = {"StrEnum", "IntEnum", "Enum", "Exception", "Protocol", "TypedDict", "NamedTuple"}
WAIVER = re.compile(r"#\s*(?:noqa|type:\s*ignore)(?P<rest>.*)$")
CODES = r"(?::\s*[A-Z]+[0-9]+(?:,\s*[A-Z]+[0-9]+)*|\[[a-z-]+(?:,\s*[a-z-]+)*\])"
WAIVER_WITH_REASON = re.compile(CODES + r"\W.*[A-Za-z]{3}")


def name_of(node: ast.expr) -> str:
    """Return the last part of a dotted name, of the thing that is called or subscripted."""
    if isinstance(node, ast.Call):
        return name_of(node.func)
    if isinstance(node, ast.Subscript):
        return name_of(node.value)
    return node.attr if isinstance(node, ast.Attribute) else ast.unparse(node)


def classes(path: Path) -> list[ast.ClassDef]:
    tree = ast.parse(path.read_text())
    return [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]


def is_open(node: ast.ClassDef) -> bool:
    bases = {name_of(base) for base in node.bases}
    return bool(bases & OPEN_BASES) or any(base.endswith("Error") for base in bases)


def is_of_laws(path: Path) -> bool:
    """Return whether a module holds law suites: classes that people inherit on purpose."""
    return "testing" in path.relative_to(ROOT).parts


@pytest.mark.parametrize("path", PACKAGE, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_public_class_is_abstract_or_final(path: Path) -> None:
    neither = [
        node.name
        for node in classes(path)
        if not is_open(node)
        and not is_of_laws(path)
        and not node.name.startswith(("_", "Abstract"))
        and "final" not in map(name_of, node.decorator_list)
    ]
    assert neither == []


@pytest.mark.parametrize("path", PACKAGE, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_public_dataclass_is_frozen_and_keyword_only(path: Path) -> None:
    loose = [
        node.name
        for node in classes(path)
        for decorator in node.decorator_list
        if not node.name.startswith("_")
        if name_of(decorator) == "dataclass"
        and not {"frozen", "kw_only"}
        <= {
            keyword.arg
            for keyword in (decorator.keywords if isinstance(decorator, ast.Call) else [])
            if ast.unparse(keyword.value) == "True"
        }
    ]
    assert loose == []


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_waived_rule_says_which_and_why(path: Path) -> None:
    waived = [line for line in path.read_text().splitlines() if WAIVER.search(line)]
    bare = [
        line
        for line in waived
        if path != Path(__file__)
        and (found := WAIVER.search(line))
        and not WAIVER_WITH_REASON.match(found["rest"])
    ]
    assert bare == []


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_left_for_later(path: Path) -> None:
    marks = re.compile("#.*(?:" + "|".join(("TO" + "DO", "FIX" + "ME", "X" + "XX")) + ")")
    assert [line for line in path.read_text().splitlines() if marks.search(line)] == []
