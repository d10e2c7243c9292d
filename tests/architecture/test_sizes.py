"""A reader takes in a module and a function at once, so both stay small."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted(
    path
    for folder in ("mpsearch", "tests", "benchmarks", "examples")
    for path in (ROOT / folder).rglob("*.py")
)
LARGEST_MODULE = 400
LONGEST_FUNCTION = 60


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count a function's lines without its docstring: explaining more is never too much."""
    assert node.end_lineno is not None
    return node.end_lineno - node.lineno + 1 - docstring_lines(node)


def docstring_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    if ast.get_docstring(node) is None:
        return 0
    first = node.body[0]
    assert first.end_lineno is not None
    return first.end_lineno - first.lineno + 1


def test_the_search_for_modules_finds_them() -> None:
    assert Path(__file__) in MODULES
    assert ROOT / "mpsearch" / "errors.py" in MODULES


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_module_and_its_functions_stay_small(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= LARGEST_MODULE
    long = {node.name: lines(node) for node in functions(ast.parse(text))}
    assert {name: size for name, size in long.items() if size > LONGEST_FUNCTION} == {}
