"""Tests stand on the package and on builders: one can be renamed or removed without another."""

import ast
from pathlib import Path

TESTS = Path(__file__).parents[1]
SOURCES = sorted(path for path in TESTS.rglob("*.py") if "corpus" not in path.parts)


def imported(tree: ast.AST) -> set[str]:
    """The names of all modules that a file imports, in functions too."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def test_no_test_module_is_imported():
    modules = {source.stem for source in SOURCES if source.name.startswith("test_")} | {"conftest"}
    assert len(modules) > 50
    for path in SOURCES:
        found = {part for name in imported(ast.parse(path.read_text())) for part in name.split(".")}
        assert not found & modules, f"{path}: what several modules ask for belongs into tests/python/builders"
