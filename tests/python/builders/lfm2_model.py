"""A small random LFM2, of which llama.cpp computes no logits while its embeddings flag is set."""

from pathlib import Path

import gguf
import numpy as np

from builders.tiny_llama import add_tokenizer

HIDDEN, VOCAB, LAYERS, FEED_FORWARD, KERNEL = 64, 96, 2, 96, 3


def write_lfm2(path: Path, pooling: int | None = None, causal: bool | None = None) -> Path:
    """Write the model, a layer of attention and one of convolution, and return ``path``.

    ``pooling`` and ``causal`` are what it says of itself, if they are given."""
    rng = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "lfm2")
    writer.add_name("Tiny LFM2")
    writer.add_context_length(256)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(2)
    writer.add_head_count_kv([2, 0])
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(VOCAB)
    writer.add_shortconv_l_cache(KERNEL)
    if pooling is not None:
        writer.add_uint32("lfm2.pooling_type", pooling)
    if causal is not None:
        writer.add_causal_attention(causal)
    add_tokenizer(writer)
    writer.add_token_list([f"tok_{i}" for i in range(VOCAB)])
    writer.add_token_scores([0.0] * VOCAB)

    def add(tensor: str, *shape: int) -> None:
        writer.add_tensor(f"{tensor}.weight", rng.standard_normal(shape, np.float32) * shape[-1] ** -0.5)

    def add_norm(tensor: str, width: int = HIDDEN) -> None:
        writer.add_tensor(f"{tensor}.weight", np.ones(width, np.float32))

    add("token_embd", VOCAB, HIDDEN)
    add_norm("token_embd_norm")
    add("output", VOCAB, HIDDEN)
    for i in range(LAYERS):
        add_norm(f"blk.{i}.attn_norm")
        add_norm(f"blk.{i}.ffn_norm")
        add(f"blk.{i}.ffn_gate", FEED_FORWARD, HIDDEN)
        add(f"blk.{i}.ffn_up", FEED_FORWARD, HIDDEN)
        add(f"blk.{i}.ffn_down", HIDDEN, FEED_FORWARD)
    for part in ("q", "k", "v", "output"):
        add(f"blk.0.attn_{part}", HIDDEN, HIDDEN)
    for part in ("q_norm", "k_norm"):
        add_norm(f"blk.0.attn_{part}", HIDDEN // 2)
    add("blk.1.shortconv.in_proj", 3 * HIDDEN, HIDDEN)
    add("blk.1.shortconv.conv", HIDDEN, KERNEL)
    add("blk.1.shortconv.out_proj", HIDDEN, HIDDEN)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
