"""How a folder was made: the command, the versions of the programs, and the hashes of the inputs."""

import hashlib
import importlib.metadata
import os
import platform
import shlex
import sys
from pathlib import Path

from autodeco.errors import InputError

# modules whose version can change an outcome, and the packages that bring them
_PACKAGES = {
    "accelerate": "accelerate",
    "autodeco": "autodeco",
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
    """Return ``command`` as it was typed, without the program's folder, and the ``versions`` of the packages loaded so
    far."""
    program, *arguments = sys.argv
    versions = {"python": platform.python_version()}
    for module, package in _PACKAGES.items():
        if module in sys.modules:
            versions[package] = package_version(package, module)
    return {"command": shlex.join([Path(program).name, *arguments]), "versions": versions}


def package_version(package: str, module: str) -> str:
    """Return the version of ``package``, which brings ``module``; "unknown" where nothing says it."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # a copy on the path, of no package
        return str(getattr(sys.modules.get(module), "__version__", "unknown"))


def file_hash(path: str | os.PathLike) -> str:
    """Return the SHA-256 of the file at ``path``, in hexadecimal; raises InputError if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give a file that can be") from None
