"""AutoDeco for llama.cpp: models that pick temperature and top-p for every token.

Importing this package is quick and needs neither torch nor transformers; each public name loads on first use.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from autodeco import batch, losses, native
    from autodeco.batch import Sampling
    from autodeco.heads import Heads
    from autodeco.llama import Llama
    from autodeco.traces import collect
    from autodeco.training import TrainingArguments, train

_LAZY = {
    "Heads": "autodeco.heads",
    "Llama": "autodeco.llama",
    "Sampling": "autodeco.batch",
    "TrainingArguments": "autodeco.training",
    "batch": "autodeco.batch",
    "collect": "autodeco.traces",
    "losses": "autodeco.losses",
    "native": "autodeco.native",
    "train": "autodeco.training",
}
__all__ = ["Heads", "Llama", "Sampling", "TrainingArguments", "batch", "collect", "losses", "native", "train"]


def __getattr__(name: str):
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            globals()[name] = version("autodeco")
        except PackageNotFoundError:  # a copy on the path, of no package
            globals()[name] = "unknown"
        return globals()[name]
    if name not in _LAZY:
        raise AttributeError(f"module 'autodeco' has no attribute '{name}'")
    module = importlib.import_module(_LAZY[name])
    value = module if _LAZY[name].endswith(f".{name}") else getattr(module, name)
    globals()[name] = value
    return value
