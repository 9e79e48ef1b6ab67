"""Small files in the place of whole models."""

import gguf
import numpy as np

HIDDEN, VOCAB = 64, 40


def write_model(path, architecture="llama", keys=(), tied=True, bias=False, weight_type=None, split=0):
    """Write a GGUF with nothing but an output matrix, and return (path, matrix as float32)."""
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((VOCAB, HIDDEN)).astype(np.float32)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_embedding_length(HIDDEN)
    writer.add_vocab_size(VOCAB)
    for key, value in keys:
        writer.add_float32(f"{architecture}.{key}", value)
    if split:
        writer.add_uint16("split.count", split)
    data = weight if weight_type is None else gguf.quantize(weight, weight_type)
    writer.add_tensor("token_embd.weight" if tied else "output.weight", data, raw_dtype=weight_type)
    if not tied:
        writer.add_tensor("token_embd.weight", np.zeros_like(weight))
    if bias:
        writer.add_tensor("output.bias", np.arange(VOCAB, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path, weight
