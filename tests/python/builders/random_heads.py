"""Heads with random weights, for any model."""

from pathlib import Path

from autodeco.export.head_tensors import head_tensors
from autodeco.export.head_weights import check_heads
from autodeco.export.layout import open_layout
from autodeco.export.writer import write_sidecar
from builders.gguf_files import head_arrays


def write_random_heads(path: Path, model: Path, seed: int = 1) -> Path:
    """Write heads for ``model`` in float32, and return ``path``."""
    base = open_layout(model)
    heads = check_heads(head_arrays(hidden=base.embedding_length, seed=seed), "random heads")
    write_sidecar(path, head_tensors(heads, "f32"), base)
    return path
