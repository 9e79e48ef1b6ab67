"""Heads with random weights, for any model."""

from dataclasses import replace
from pathlib import Path

from autodeco.export.control_ends import ControlEnds
from autodeco.export.head_tensors import head_tensors
from autodeco.export.head_weights import HeadWeights, check_heads
from autodeco.export.layout import open_layout
from autodeco.export.writer import write_sidecar
from builders.gguf_files import head_arrays


def with_control(heads: HeadWeights, control: ControlEnds, scale: float = 2.0, seed: int = 1) -> HeadWeights:
    """``heads`` with a control head that leads to ``control``.

    ``scale`` times its weights, so that levels of different states are far apart, and none is at an end."""
    random = head_arrays(heads.hidden_size, seed=seed, control=True)
    arrays = {name: scale * array for name, array in random.items() if name.startswith("control_head")}
    return replace(heads, tensors=heads.tensors | arrays, control=control)


def write_random_heads(
    path: Path,
    model: Path,
    seed: int = 1,
    control: ControlEnds | None = None,
    weight_type: str = "f32",
    control_scale: float = 2.0,
) -> Path:
    """Write heads for ``model``, with a control head that leads to ``control`` if that is given; return ``path``."""
    base = open_layout(model)
    heads = check_heads(head_arrays(hidden=base.embedding_length, seed=seed), "random heads")
    if control is not None:
        heads = with_control(heads, control, control_scale, seed)
    write_sidecar(path, head_tensors(heads, weight_type), base)
    return path
