"""Print "version;include directory;library directory" of the installed llama-cpp-python, without importing it."""

import importlib.metadata
import importlib.util
import sys
from pathlib import Path

spec = importlib.util.find_spec("llama_cpp")
if spec is None or not spec.submodule_search_locations:
    sys.exit(1)
package = Path(spec.submodule_search_locations[0])
version = importlib.metadata.version("llama-cpp-python")
print(f"{version};{package.parent / 'include'};{package / 'lib'}")
