"""How a folder was made: the command, and the versions of what made it."""

import importlib.metadata
import platform
import shlex
import sys
from pathlib import Path

from autodeco import __version__

# modules whose version can change an outcome, and the packages that bring them
_PACKAGES = {
    "accelerate": "accelerate",
    "llama_cpp": "llama-cpp-python",
    "math_verify": "math-verify",
    "numpy": "numpy",
    "reasoning_gym": "reasoning-gym",
    "safetensors": "safetensors",
    "scipy": "scipy",
    "torch": "torch",
    "transformers": "transformers",
}


def provenance() -> dict:
    """Return ``command`` as it was typed, without the program's folder, and ``versions`` of what is loaded by now."""
    program, *arguments = sys.argv
    versions = {"autodeco": __version__, "python": platform.python_version()}
    for module, package in _PACKAGES.items():
        if module in sys.modules:
            try:
                versions[package] = importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError:  # a copy on the path, of no package
                versions[package] = str(getattr(sys.modules[module], "__version__", "unknown"))
    return {"command": shlex.join([Path(program).name, *arguments]), "versions": versions}
