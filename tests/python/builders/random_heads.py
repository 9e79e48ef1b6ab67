"""Heads with random weights, for any model."""

from pathlib import Path

from autodeco.export.control_ends import ControlEnds
from autodeco.export.head_tensors import head_tensors
from autodeco.export.head_weights import check_heads
from autodeco.export.layout import open_layout
from autodeco.export.writer import write_sidecar
from builders.gguf_files import head_arrays


def write_random_heads(
    path: Path,
    model: Path,
    seed: int = 1,
    control: ControlEnds | None = None,
    weight_type: str = "f32",
    control_scale: float = 2.0,
) -> Path:
    """Write heads for ``model``, with a control head that leads to ``control`` if that is given; return ``path``.

    ``control_scale`` times its weights, so that levels of different states are far apart, and none is at an end."""
    base = open_layout(model)
    arrays = head_arrays(hidden=base.embedding_length, seed=seed, control=control is not None)
    for name in arrays:
        if name.startswith("control_head"):
            arrays[name] *= control_scale
    heads = check_heads(arrays, "random heads", control=control)
    write_sidecar(path, head_tensors(heads, weight_type), base)
    return path
