"""Check the types of the public surface, as pyproject.toml says what that is: python tests/typed.py

mypy finds packages by their folders, so it gets the tree as it is installed, with export/ in its place.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "autodeco"
        shutil.copytree(ROOT / "autodeco", package)
        shutil.copytree(ROOT / "export", package / "export")
        shutil.copy(ROOT / "tests" / "typing" / "client.py", folder)
        settings = ["--config-file", ROOT / "pyproject.toml", "--cache-dir", ROOT / "build" / "mypy"]
        sys.exit(subprocess.run([sys.executable, "-m", "mypy", *settings], cwd=folder, check=False).returncode)
