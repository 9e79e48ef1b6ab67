"""The files that hold inputs and outputs of the official implementation."""

from pathlib import Path

GOLDEN = Path(__file__).parents[2] / "golden"
CASES = ["smollm2", "tiny_plain"]


def golden(case):
    """Return heads, hidden, logits, labels and expected values; the official losses score position t on label t+1."""
    import torch  # conftest asks for the folder alone, without what trains
    from safetensors.torch import load_file

    from autodeco import Heads

    heads = Heads.from_pretrained(GOLDEN / f"{case}.heads.safetensors")
    inputs = load_file(GOLDEN / f"{case}.inputs.safetensors")
    labels = torch.cat([inputs["labels"][1:], torch.tensor([-100])])
    return heads, inputs["hidden"], inputs["logits"], labels, load_file(GOLDEN / f"{case}.expected.safetensors")
