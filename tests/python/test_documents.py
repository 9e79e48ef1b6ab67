"""What the documents point to is there, in a fresh checkout."""

import re
from pathlib import Path

import pytest

from autodeco import native
from autodeco.export.fit import check_fit
from autodeco.export.layout import open_layout

REPOSITORY = Path(__file__).parent.parent.parent
DOCUMENTS = [*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/*.md"), *REPOSITORY.glob("examples/*/README.md")]
HEADS = ("likelihood", "likelihood-traces", "reward", "reward-make")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_links_lead_somewhere(document):
    links = re.findall(r"\]\(([^)#\s]+)", document.read_text())
    missing = [link for link in links if "://" not in link and not (document.parent / link).exists()]
    assert missing == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_files_that_a_page_names_are_there(document):
    """Those with a folder of the repository in front."""
    folders = "autodeco|benchmarks|cmake|cpp_ext|docs|examples|export|tests|website"
    text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.DOTALL | re.MULTILINE)
    named = re.findall(rf"`((?:{folders})/[\w./-]*\w\.(?:cmake|cpp|h|inl|json|md|py|sh|ya?ml))`", text)
    assert [path for path in named if not (REPOSITORY / path).exists()] == []


def test_the_tests_of_each_layer_are_there():
    named = re.findall(r"test_[\w*]+\.py", (REPOSITORY / "CONTRIBUTING.md").read_text())
    assert len(named) > 30
    assert [name for name in named if not list((REPOSITORY / "tests" / "python").glob(name))] == []


@pytest.mark.parametrize("name", HEADS)
def test_the_heads_of_the_example_are_those_of_its_model(name, smollm2):
    path = REPOSITORY / "examples" / "smollm2" / "results" / f"{name}.gguf"
    assert check_fit(open_layout(path), open_layout(smollm2)) is None
    native.load_heads(path)
