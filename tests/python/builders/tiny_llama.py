"""A small random transformer, whose memory can forget its last tokens."""

from pathlib import Path

import gguf
import llama_cpp
import numpy as np
import pytest

HIDDEN, VOCAB, LAYERS, FEED_FORWARD = 64, 96, 2, 96
HAS_TEST_TOKENIZER = hasattr(llama_cpp, "LLAMA_VOCAB_TYPE_TEST")


def add_tokenizer(writer: gguf.GGUFWriter) -> None:
    """Name llama.cpp's own for tests, in which a token is a piece of text of fixed length; skip the test without."""
    if not HAS_TEST_TOKENIZER:
        pytest.skip(f"llama-cpp-python {llama_cpp.__version__} lacks llama.cpp's tokenizer for tests")
    writer.add_tokenizer_model("test")


def write_llama(path: Path) -> Path:
    """Write the model and return ``path``; without a tokenizer for tests, it knows tokens and no text."""
    rng = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("Tiny Llama")
    writer.add_context_length(256)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(HIDDEN // 2)
    writer.add_vocab_size(VOCAB)
    writer.add_tokenizer_model("test" if HAS_TEST_TOKENIZER else "llama")
    writer.add_token_list([f"tok_{i}" for i in range(VOCAB)])
    writer.add_token_scores([0.0] * VOCAB)

    def add(tensor: str, *shape: int, scale: float = 1.0) -> None:
        writer.add_tensor(f"{tensor}.weight", scale * rng.standard_normal(shape, np.float32) * shape[-1] ** -0.5)

    add("token_embd", VOCAB, HIDDEN)
    add("output", VOCAB, HIDDEN, scale=3.0)  # some tokens are far likelier than others, as in a trained model
    writer.add_tensor("output_norm.weight", np.ones(HIDDEN, np.float32))
    for i in range(LAYERS):
        for part in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{i}.{part}.weight", np.ones(HIDDEN, np.float32))
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            add(f"blk.{i}.{part}", HIDDEN, HIDDEN)
        add(f"blk.{i}.ffn_gate", FEED_FORWARD, HIDDEN)
        add(f"blk.{i}.ffn_up", FEED_FORWARD, HIDDEN)
        add(f"blk.{i}.ffn_down", HIDDEN, FEED_FORWARD)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
