"""What a package does without stays out of a process that imports it, and public names are where documents say."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import autodeco

REPOSITORY = Path(__file__).parents[2]
COMPILED = ("autodeco._native", "autodeco.native")
TORCH = ("torch", "transformers", "accelerate")


def loaded(*modules: str) -> set[str]:
    """The modules of a fresh process that imported ``modules``."""
    code = f"import json, sys, {', '.join(modules)}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


@pytest.mark.parametrize(
    ("modules", "absent"),
    [
        (["autodeco"], [*TORCH, *COMPILED, "llama_cpp", "numpy"]),
        (
            ["autodeco.cli", *(f"autodeco.commands.{verb}" for verb in ("train", "eval"))],
            [*TORCH, *COMPILED, "llama_cpp"],
        ),
        (["autodeco.batch", "autodeco.llama", "autodeco.evaluation.running", "autodeco.rollouts"], TORCH),
        (["autodeco.export.cli", "autodeco.export.card"], [*TORCH, *COMPILED, "llama_cpp"]),
        (["autodeco.traces.collecting", "autodeco.commands.collect"], TORCH),
        (["autodeco.traces", "autodeco.training.trace_source"], COMPILED),
        (
            [
                "autodeco.training.hugging_face_source",
                "autodeco.training.loop",
                "autodeco.hugging_face.model",
                "autodeco.losses",
                "autodeco.rewards.hugging_face",
                "autodeco.rewards.loop",
            ],
            [*COMPILED, "llama_cpp"],
        ),
    ],
    ids=lambda names: names[0],
)
def test_what_a_package_does_without_is_not_imported(modules, absent):
    pytest.importorskip("torch")
    found = loaded(*modules)
    assert set(modules) <= found
    assert found.isdisjoint(absent), found & set(absent)


def test_every_public_name_is_what_its_module_calls_so():
    pytest.importorskip("torch")
    assert sorted(autodeco._LAZY) == autodeco.__all__
    for name in autodeco.__all__:
        value = getattr(autodeco, name)
        assert value.__name__.rpartition(".")[2] == name
    assert autodeco.train.__module__ == "autodeco.training.loop"
    assert autodeco.collect.__module__ == "autodeco.traces.collecting"


def test_reports_leave_the_settings_of_matplotlib_alone():
    pytest.importorskip("torch")
    code = """
import matplotlib
before, backend = dict(matplotlib.rcParams), matplotlib.get_backend(auto_select=False)
import autodeco.evaluation.plots, autodeco.training.report
from autodeco.reports.svg import svg_of
from matplotlib.figure import Figure
figure = Figure()
figure.add_subplot().set_xlabel("a label")
assert ">a label</text>" in svg_of(figure) and svg_of(figure) == svg_of(figure)
assert dict(matplotlib.rcParams) == before
assert matplotlib.get_backend(auto_select=False) == backend
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_types_of_the_compiled_module_are_those_of_its_stub():
    assert autodeco.native.BUILT_AGAINST  # which loads it
    stub = ast.parse((REPOSITORY / "autodeco" / "_native.pyi").read_text())
    compiled = vars(sys.modules["autodeco._native"])
    named = {node.name: node for node in stub.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    constants = {node.target.id for node in stub.body if isinstance(node, ast.AnnAssign)}
    assert {*named, *constants} == {name for name in compiled if not name.startswith("__")}
    for name, node in named.items():
        if isinstance(node, ast.ClassDef):
            members = {
                item.target.id if isinstance(item, ast.AnnAssign) else item.name
                for item in node.body
                if isinstance(item, ast.AnnAssign | ast.FunctionDef)
            }
            there = {member for member in vars(compiled[name]) if not member.startswith("_")}
            assert members - {"__init__"} == there, name
