"""The files that GitHub reads are as its schemas say, and what the workflows call is there."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from autodeco.export import llama_cpp_source

REPOSITORY = Path(__file__).parents[2]
WORKFLOWS = sorted((REPOSITORY / ".github" / "workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
PRESETS = json.loads((REPOSITORY / "CMakePresets.json").read_text())


def follows(schema: str, *files: Path | str) -> None:
    """Assert that ``files`` follow a schema that check-jsonschema holds."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *files]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_workflows_follow_the_schema_of_github():
    assert [path.name for path in WORKFLOWS] == ["ci.yml", "edge.yml"]
    follows("vendor.github-workflows", *WORKFLOWS)


def test_forms_for_issues_and_the_citation_follow_their_schemas():
    templates = REPOSITORY / ".github" / "ISSUE_TEMPLATE"
    forms = sorted(path for path in templates.glob("*.yml") if path.name != "config.yml")
    assert [path.stem for path in forms] == ["fault", "wish"]
    follows("vendor.github-issue-forms", *forms)
    follows("vendor.github-issue-config", templates / "config.yml")
    follows("vendor.citation-file-format", "--default-filetype", "yaml", REPOSITORY / "CITATION.cff")


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_calls_what_is_there_and_says_what_has_not_run(workflow):
    text = workflow.read_text()
    assert set(re.findall(r"\bmake ([a-z][a-z-]*)", text)) <= TARGETS
    presets = {preset["name"] for kind in ("configurePresets", "buildPresets") for preset in PRESETS[kind]}
    assert set(re.findall(r"--preset ([\w-]+)", text)) <= presets
    scripts = re.findall(r"\bpython3? ([\w/]+\.py)", text)
    assert [path for path in scripts if not (REPOSITORY / path).exists()] == []
    assert "None of these jobs has run" in text


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_tests_of_an_installed_package_are_not_run_in_its_source(workflow):
    """`python -m pytest` there would import the folder autodeco/, which has no compiled module."""
    text = workflow.read_text(encoding="utf-8")
    assert "-m pytest" not in text
    named = re.findall(r"tests/installed\.py .*-- (.*)", text)
    files = {name for line in named for name in line.split()}
    assert [name for name in files if not (REPOSITORY / "tests" / "python" / name).exists()] == []
    assert files or workflow.name != "ci.yml"


def test_every_check_of_the_makefile_has_a_job():
    called = set(re.findall(r"(?:- run: make|target:) ([a-z-]+)", "".join(path.read_text() for path in WORKFLOWS)))
    checks = {"lint", "workflows", "docs", "test", "sanitize", "clang", "fuzz", "fuzz-heads"}
    assert called >= checks | {"edge", "edge-arm", "edge-rpc", "edge-windows", "window"}


def test_every_release_of_the_window_has_a_job():
    ci = next(path for path in WORKFLOWS if path.name == "ci.yml").read_text(encoding="utf-8")
    tried = json.loads(re.search(r"release: (\[.*\])", ci)[1])
    assert [*tried, llama_cpp_source.VERSION] == list(llama_cpp_source.RELEASES)
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    assert re.search(r"^RELEASES \?= (.*)$", makefile, re.MULTILINE)[1].split() == tried
