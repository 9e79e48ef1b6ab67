"""Benchmarks take from the package what is there: they are run too seldom to find that out."""

import ast
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted([*(ROOT / "benchmarks").rglob("*.py"), *(ROOT / "examples").rglob("*.py")])


def imported(script: Path) -> list[tuple[str, str | None]]:
    """The modules of ours that a script imports, anywhere in it, each with a name that it takes, if any."""
    found = []
    for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(alias.name, None) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [(node.module, alias.name) for alias in node.names]
    return [(module, name) for module, name in found if module.partition(".")[0] == "autodeco"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: str(script.relative_to(ROOT)))
def test_what_a_benchmark_imports_is_there(script):
    if "torch" in script.read_text():
        pytest.importorskip("torch")
    for module, name in imported(script):
        if "triton" in module:
            pytest.importorskip("triton")
        there = importlib.import_module(module)
        if name is not None and not hasattr(there, name):
            importlib.import_module(f"{module}.{name}")
