"""Tests stand on the package and on builders: one can be renamed or removed without another."""

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
# Names of other projects, which have no public ones for what is asked, and one of ours.
PRIVATE = {
    "_HelpAction": "argparse: the kind of --help",
    "_LAZY": "the table of the package's public names, which a test compares with __all__",
    "_actions": "argparse: the arguments of a parser",
    "_attn_implementation": "transformers: which attention a model runs",
    "_chat_handlers": "llama-cpp-python: the chat formats of one model",
    "_exit": "os: the end of a forked child, without what its parent registered",
    "_fields_": "ctypes: the members of a structure",
    "_legacy_seeding": "numpy: the seeding of C++'s std::mt19937",
    "_lib": "llama-cpp-python: the library that ctypes opened",
    "_logits_all": "llama-cpp-python: whether a model keeps the logits of all tokens",
    "_logger": "llama-cpp-python: says whether llama.cpp's log is printed",
    "_model": "llama-cpp-python: the model itself, with its vocabulary",
    "_native": "the compiled module: what it says of the llama.cpp that it was built for",
}
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


def private_names(tree: ast.AST) -> set[str]:
    """The names with one underscore that a file imports, takes from an object other than ``self``, or patches."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and not (isinstance(node.value, ast.Name) and node.value.id == "self"):
            names.add(node.attr)
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("attr"):  # getattr, monkeypatch.setattr
            names |= {each.value for each in node.args if isinstance(each, ast.Constant) and type(each.value) is str}
    return {name for name in names if name.startswith("_") and not name.startswith("__")}


@pytest.mark.parametrize(
    "code", ["a.b._c", "setattr(a, '_c', 1)", "patch.setattr(a, '_c', 1)", "from a import _c", "getattr(a, '_c')"]
)
def test_private_names_are_found(code):
    assert private_names(ast.parse(code)) == {"_c"}


def test_private_names_are_not_used():
    used = {}
    for path in SOURCES:
        for name in private_names(ast.parse(path.read_text())):
            used.setdefault(name, []).append(path.name)
    others = {name: paths for name, paths in used.items() if name not in PRIVATE}
    assert not others, "a test asks for what is public, so that what is private can be renamed"
    assert used.keys() == PRIVATE.keys(), "an exception that nothing needs"
