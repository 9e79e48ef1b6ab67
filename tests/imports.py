"""Check who imports whom, as pyproject.toml allows it: python tests/imports.py

import-linter finds packages by their folders, so it gets the tree as it is installed, with export/ in its place.
"""

import importlib.machinery
import os
import shutil
import sys
import tempfile
from pathlib import Path

from importlinter.cli import lint_imports

ROOT = Path(__file__).resolve().parent.parent

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "autodeco"
        shutil.copytree(ROOT / "autodeco", package)
        shutil.copytree(ROOT / "export", package / "export")
        (package / "_native.py").touch()  # compiled: what counts is who imports it
        os.chdir(folder)  # the first place that import-linter looks at
        sys.meta_path.insert(0, importlib.machinery.PathFinder)  # before that of the editable install
        sys.exit(lint_imports(str(ROOT / "pyproject.toml"), no_cache=True))
