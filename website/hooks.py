"""What MkDocs does not find in docs/: pages of other folders, the files that pages link to, and the reference."""

import os
import posixpath
import re
import shutil
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(Path(__file__).parent))

import reference  # noqa: E402

# pages of the site that lie elsewhere in the repository
ELSEWHERE = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "README.md": "start.md",
    "RELEASING.md": "releasing.md",
    "SECURITY.md": "security.md",
    "examples/qwen2.5-coder-0.5b/README.md": "examples/qwen2.5-coder-0.5b.md",
    "examples/smollm2/README.md": "examples/smollm2.md",
}
# where a page of the site says the same
INSTEAD = {"cpp_ext/include/autodeco.h": "reference/c.md"}
LINK = re.compile(r"\[([^\[\]]*)\]\(([^()#\s]+)(#[^()\s]*)?\)")


def on_startup(**_) -> None:
    """Lay the package out as it is installed, with export/ in its place, for mkdocstrings to read."""
    package = ROOT / "build" / "documented" / "autodeco"
    shutil.rmtree(package, ignore_errors=True)
    shutil.copytree(ROOT / "autodeco", package)
    shutil.copytree(ROOT / "export", package / "export")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add all pages and files; links that lead out of docs/ lead to where the site has what they name."""
    pages = {f"docs/{file.src_uri}": file.src_uri for file in files.documentation_pages()} | ELSEWHERE
    linked: dict[str, str] = {}
    contents = {
        uri: _moved((ROOT / path).read_text(encoding="utf-8"), path, pages, linked) for path, uri in pages.items()
    }
    contents |= reference.pages(ROOT)
    for uri, content in contents.items():
        if old := files.get_file_from_path(uri):
            files.remove(old)
        files.append(File.generated(config, uri, content=content))
    for path, uri in linked.items():
        files.append(File.generated(config, uri, abs_src_path=str(ROOT / path)))
    return files


def _moved(text: str, path: str, pages: dict[str, str], linked: dict[str, str]) -> str:
    """``text`` of the file ``path`` with its links as the site has them; ``linked`` gets the files that they need."""
    own = posixpath.dirname(pages[path])

    def moved(found: re.Match) -> str:
        words, link, anchor = found[1], found[2], found[3] or ""
        if "://" in link:
            return found[0]
        target = posixpath.normpath(posixpath.join(posixpath.dirname(path), link))
        uri = INSTEAD.get(target) or pages.get(target) or pages.get(f"{target}/README.md")
        if uri is None and (ROOT / target).is_dir():
            return words
        if uri is None and target.startswith("docs/"):
            uri = target.removeprefix("docs/")
        if uri is None:
            if not (ROOT / target).is_file():
                return found[0]  # of which MkDocs says that it leads nowhere
            # a name that is served as text, whatever it is
            uri = linked[target] = f"files/{target}.txt"
        return f"[{words}]({os.path.relpath(uri, own or '.')}{anchor})"

    return LINK.sub(moved, text)
