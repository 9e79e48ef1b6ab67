"""The site builds without a warning, which dead links and anchors are, and its reference holds what there is."""

import html
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from autodeco.cli import VERBS

pytest.importorskip("mkdocs")
pytest.importorskip("torch")  # what is public is imported
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    result = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


def page(site: Path, name: str) -> str:
    return (site / name / "index.html").read_text()


def test_every_page_is_on_the_site_and_in_its_contents(site):
    home = (site / "index.html").read_text()
    for document in (REPOSITORY / "docs").glob("*.md"):
        if document.name != "README.md":
            assert page(site, document.stem)
            assert f'href="{document.stem}/"' in home, document


def test_no_list_or_table_is_taken_for_a_paragraph(site):
    """Which GitHub is laxer about: Python-Markdown wants an empty line before them, and four spaces within them."""
    for file in site.rglob("index.html"):
        text = re.sub(r"<pre.*?</pre>", "", file.read_text(), flags=re.DOTALL)
        swallowed = re.findall(r"<p>(?:(?!</p>).)*?\n\s*(?:[-*] |\d+\. |\||```)(?:(?!</p>).)*</p>", text, re.DOTALL)
        assert swallowed == [], file


def test_every_public_name_is_in_the_reference_with_its_docstring(site):
    text = page(site, "reference/python")
    for module in ("batch", "losses", "traces", "training"):
        for name in importlib.import_module(f"autodeco.{module}").__all__:
            assert f'id="autodeco.{module}.{name}"' in text, name
    shown = " ".join(re.sub(r"<[^>]*>", "", html.unescape(text)).split())
    assert "A llama.cpp model that picks temperature and top-p for every token by itself." in shown


def test_every_function_of_the_header_has_an_anchor(site):
    header = (REPOSITORY / "cpp_ext" / "include" / "autodeco.h").read_text()
    functions = re.findall(r"^AUTODECO_API .*?(autodeco_\w+)\s*\(", header, re.MULTILINE)
    assert len(functions) > 20
    headings = " ".join(re.findall(r"<h3.*?</h3>", page(site, "reference/c"), re.DOTALL))
    assert [name for name in functions if f"<code>{name}</code>" not in headings] == []


def test_every_command_says_its_help(site):
    text = page(site, "reference/commands")
    for command in ("autodeco-export", *(f"autodeco-{verb}" for verb in VERBS)):
        section = text[text.index(f'id="{command}"') :]
        assert (
            f"usage: {command.replace('autodeco-', 'autodeco ') if command != 'autodeco-export' else command}"
            in (html.unescape(re.sub(r"<[^>]*>", "", section))[:400])
        )


def test_keys_and_traces_are_among_the_formats(site):
    text = html.unescape(re.sub(r"<[^>]*>", "", page(site, "reference/files")))
    assert "autodeco.embedding_length" in text
    assert "autodeco-traces" in text
