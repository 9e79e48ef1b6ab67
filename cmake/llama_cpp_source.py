"""Unpack a known llama.cpp source for -DLLAMA_CPP_DIR: python3 cmake/llama_cpp_source.py [DIR [RELEASE]]

DIR (default: build/llama.cpp) is left alone if it is there. RELEASE is one of llama-cpp-python (default: that of the
documents). Needs pip, which fetches the package and checks its hash.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from autodeco.errors import InputError  # noqa: E402
from export.llama_cpp_source import library_source  # noqa: E402

if __name__ == "__main__":
    try:
        folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "llama.cpp"
        print(library_source(folder, *sys.argv[2:3]))
    except InputError as error:
        print(f"llama_cpp_source.py: {error}", file=sys.stderr)
        sys.exit(2)
