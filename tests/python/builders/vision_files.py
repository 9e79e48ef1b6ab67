"""A projector file (mmproj) with tiny random weights, for chats with images."""

from pathlib import Path

import gguf
import numpy as np

WIDTH, HEADS, FEED_FORWARD, LAYERS = 16, 2, 32, 2
IMAGE, PATCH = 28, 14
IMAGE_TOKENS = (IMAGE // PATCH) ** 2


def write_projector(path: Path, n_embd: int) -> Path:
    """Write a LLaVA projector for a model of width ``n_embd``: an image becomes ``IMAGE_TOKENS`` hidden states."""
    rng = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "clip")
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_string("clip.projector_type", "mlp")
    writer.add_bool("clip.use_gelu", True)
    sizes = {
        "embedding_length": WIDTH,
        "attention.head_count": HEADS,
        "feed_forward_length": FEED_FORWARD,
        "block_count": LAYERS,
        "projection_dim": n_embd,
        "image_size": IMAGE,
        "patch_size": PATCH,
    }
    for name, value in sizes.items():
        writer.add_uint32(f"clip.vision.{name}", value)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-5)
    writer.add_array("clip.vision.image_mean", [0.5, 0.5, 0.5])
    writer.add_array("clip.vision.image_std", [0.5, 0.5, 0.5])

    def add(name: str, *shape: int) -> None:
        writer.add_tensor(name, rng.normal(0, 0.5, shape).astype(np.float32))

    def add_layer(name: str, *shape: int) -> None:
        add(f"{name}.weight", *shape)
        add(f"{name}.bias", shape[0])

    add("v.patch_embd.weight", WIDTH, 3, PATCH, PATCH)
    add("v.class_embd", WIDTH)
    add("v.position_embd.weight", IMAGE_TOKENS + 1, WIDTH)
    add_layer("v.pre_ln", WIDTH)
    for layer in range(LAYERS):
        block = f"v.blk.{layer}"
        for part in ("attn_q", "attn_k", "attn_v", "attn_out"):
            add_layer(f"{block}.{part}", WIDTH, WIDTH)
        for part in ("ln1", "ln2"):
            add_layer(f"{block}.{part}", WIDTH)
        add_layer(f"{block}.ffn_up", FEED_FORWARD, WIDTH)
        add_layer(f"{block}.ffn_down", WIDTH, FEED_FORWARD)
    add_layer("mm.0", n_embd, WIDTH)
    add_layer("mm.2", n_embd, n_embd)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
