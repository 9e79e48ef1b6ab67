"""Print "version;include directory;library directory;version of ggml" of the installed llama-cpp-python, without
importing it. The last is empty where the package does not say."""

import importlib.metadata
import importlib.util
import re
import sys
from pathlib import Path

spec = importlib.util.find_spec("llama_cpp")
if spec is None or not spec.submodule_search_locations:
    sys.exit(1)
package = Path(spec.submodule_search_locations[0])
version = importlib.metadata.version("llama-cpp-python")
said = package.parent / "lib" / "cmake" / "ggml" / "ggml-config-version.cmake"
found = re.search(r'PACKAGE_VERSION "([^"]+)"', said.read_text(encoding="utf-8")) if said.exists() else None
print(f"{version};{package.parent / 'include'};{package / 'lib'};{found[1] if found else ''}")
