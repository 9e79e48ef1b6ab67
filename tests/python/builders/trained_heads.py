"""What training leaves in a folder."""

from safetensors.torch import load_file


def weights(folder):
    return load_file(folder / "model.safetensors")
