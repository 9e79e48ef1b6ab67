"""A package that is missing ends a command in one line with the extra that brings it, as pyproject.toml has it."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from autodeco.settings.extras import extras_with, missing_package

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = {name: packages for name, packages in PROJECT["optional-dependencies"].items() if name != "dev"}
MODULES = {"pyyaml": "yaml", "protobuf": "google.protobuf", "llama-cpp-python": "llama_cpp"}  # of other names


def module_of(requirement: str) -> str:
    package = re.match(r"[\w-]+", requirement)[0]
    return MODULES.get(package, package.replace("-", "_"))


CORE = {module_of(requirement) for requirement in PROJECT["dependencies"]}
CASES = [(extra, module_of(requirement)) for extra, packages in EXTRAS.items() for requirement in packages]


@pytest.mark.parametrize(("extra", "module"), [case for case in CASES if case[1] not in CORE])
def test_every_package_of_an_extra_is_named_with_it(extra, module):
    assert extras_with(module) == [name for name, packages in EXTRAS.items() if module in map(module_of, packages)]
    line = f"this needs the package {module}: pip install 'autodeco[{extra}]'"
    assert missing_package(module, [extra, "--flag"]) == line


@pytest.mark.parametrize(
    ("module", "argv", "extra"),
    [
        ("transformers", ["reward"], "train"),
        ("matplotlib", ["eval"], "eval"),
        ("matplotlib", ["train"], "train"),
        ("tensorboard", [], "train"),
        ("sentencepiece", ["train"], "convert"),
    ],
)
def test_of_several_extras_that_of_the_verb_is_told_else_the_first(module, argv, extra):
    assert missing_package(module, argv).endswith(f"[{extra}]'")


@pytest.mark.parametrize("module", ["", "autodeco.nothing", "numpy", "filelock", "yaml", "jinja2", "pytest", "ruff"])
def test_what_no_extra_brings_is_not_explained(module):
    assert missing_package(module, ["train"]) is None


def imported_modules() -> set[str]:
    """The first part of every module that the package imports, somewhere."""
    names = set()
    for file in [*(ROOT / "autodeco").rglob("*.py"), *(ROOT / "export").rglob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(node.module.partition(".")[0])
    return names - {"autodeco", *sys.stdlib_module_names}


def test_every_package_that_is_imported_is_a_dependency_or_in_an_extra():
    with_torch = {"triton"}  # torch brings it where it exists, and the code asks whether it does
    users_own = {"wandb"}  # whoever asks for --tracker wandb has it
    missing = {name for name in imported_modules() - CORE - with_torch - users_own if not extras_with(name)}
    assert not missing


@pytest.mark.parametrize("module", ["transformers", "accelerate"])
def test_a_command_that_lacks_a_package_ends_in_one_line(tmp_path, module):
    (tmp_path / "model").mkdir()
    code = f"import sys; sys.modules[{module!r}] = None; from autodeco.cli import main; sys.exit(main())"
    arguments = ["train", "--model", tmp_path / "model", "--data", tmp_path / "data", "-o", tmp_path / "heads"]
    command = [sys.executable, "-c", code, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr == f"autodeco: error: this needs the package {module}: pip install 'autodeco[train]'\n"
