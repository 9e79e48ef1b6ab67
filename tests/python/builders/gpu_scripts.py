"""The scripts of benchmarks/gpu, as modules."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).parents[3] / "benchmarks" / "gpu"


def load(name: str) -> ModuleType:
    """Return the script ``name`` anew; one that imports its neighbours wants ``FOLDER`` on the path."""
    spec = importlib.util.spec_from_file_location(f"gpu_script_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for what their annotations name
    spec.loader.exec_module(module)
    return module
