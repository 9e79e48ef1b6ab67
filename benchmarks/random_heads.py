"""Heads of random weights, for figures that do not depend on what heads have learnt."""

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from autodeco.export.schema import HEAD_WIDTH


def write_random_heads(path: Path, hidden: int) -> None:
    """Write both heads for hidden states of this width, with the probability statistics, as safetensors."""
    random = np.random.default_rng(1)
    shapes = {}
    for head, columns in (("temp_head", hidden), ("top_p_head", hidden + 5)):
        shapes |= {f"{head}.mlp.0.weight": (HEAD_WIDTH, columns), f"{head}.mlp.0.bias": (HEAD_WIDTH,)}
        shapes |= {f"{head}.mlp.2.weight": (1, HEAD_WIDTH), f"{head}.mlp.2.bias": (1,)}
    save_file({name: random.standard_normal(shape).astype(np.float32) * 0.02 for name, shape in shapes.items()}, path)
