"""A random model of one layer with SmolLM2's vocabulary: python3 benchmarks/one_layer_model.py MODEL.gguf

For figures and tests that want the texts of a real vocabulary, and whose time should not be that of a model.
"""

import re
import sys
from pathlib import Path

import gguf
import numpy as np

from autodeco.base.opening import default_model

HIDDEN, FEED_FORWARD = 64, 64
ORDINARY = re.compile(r"[\u0120 -~]+")  # ASCII, in the letters that such vocabularies write bytes with
TOKENIZER = "tokenizer.ggml."


def write_model(path: Path, context: int) -> None:
    """Write a Llama of one layer for texts of ``context`` tokens, with SmolLM2's vocabulary and random weights."""
    fields = gguf.GGUFReader(default_model()).fields
    said = {name.removeprefix(TOKENIZER): field.contents() for name, field in fields.items() if TOKENIZER in name}
    vocab, rng = len(said["tokens"]), np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("one layer")
    writer.add_context_length(context)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(1)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(1)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(HIDDEN)
    writer.add_vocab_size(vocab)
    writer.add_tokenizer_model(said["model"])
    writer.add_tokenizer_pre(said["pre"])
    writer.add_token_list(said["tokens"])
    writer.add_token_merges(said["merges"])
    writer.add_token_types(said["token_type"])
    writer.add_bos_token_id(said["bos_token_id"])
    writer.add_eos_token_id(said["eos_token_id"])
    shapes = {"token_embd": (vocab, HIDDEN), "output": (vocab, HIDDEN)}
    shapes |= {f"blk.0.attn_{part}": (HIDDEN, HIDDEN) for part in ("q", "k", "v", "output")}
    shapes |= {f"blk.0.ffn_{part}": (FEED_FORWARD, HIDDEN) for part in ("gate", "up", "down")}
    weights = {name: rng.standard_normal(shape, np.float32) * 0.1 for name, shape in shapes.items()}
    # one element of every hidden state is large, and keeps away tokens that are no ordinary text
    weights["token_embd"][:, 0] = 4.0
    weights["output"][:, 0] = np.where([ORDINARY.fullmatch(token) is not None for token in said["tokens"]], 0.0, -10.0)
    for name, weight in weights.items():
        writer.add_tensor(f"{name}.weight", weight)
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(HIDDEN, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    writer.close()


if __name__ == "__main__":
    write_model(Path(sys.argv[1]), 512)
