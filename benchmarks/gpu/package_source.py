"""Unpack the pinned llama-cpp-python as pip builds it, less what building does not need: package_source.py FOLDER."""

import sys
from pathlib import Path

from autodeco.export.llama_cpp_source import LIBRARY, PACKAGE, unpacked

BUILDABLE = ("pyproject.toml", "CMakeLists.txt", "README.md", "LICENSE.md", "llama_cpp/")
BUILDABLE += tuple(f"vendor/llama.cpp/{part}" for part in LIBRARY)

if __name__ == "__main__":
    unpacked(Path(sys.argv[1]), BUILDABLE, PACKAGE)
