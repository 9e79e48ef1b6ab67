"""GGUF and safetensors files for tests, put together byte by byte so that they can also be wrong."""

import json
import struct

import numpy as np

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
_CODES = dict(enumerate("BbHhIif?")) | {U64: "Q", I64: "q", F64: "d"}
TENSOR_F32, TENSOR_F16, TENSOR_Q8_0, TENSOR_I8 = 0, 1, 8, 24


def string(text) -> bytes:
    raw = text if isinstance(text, bytes) else text.encode()
    return struct.pack("<Q", len(raw)) + raw


def scalar(kind: int, value) -> bytes:
    if kind == STRING:
        return string(value)
    return struct.pack("<" + _CODES[kind], value)


def key(name, kind: int, value) -> bytes:
    """A key; a list value is an array of ``kind``."""
    if isinstance(value, list):
        items = b"".join(scalar(kind, item) for item in value)
        return string(name) + struct.pack("<IIQ", ARRAY, kind, len(value)) + items
    return string(name) + struct.pack("<I", kind) + scalar(kind, value)


def tensor(name, shape, kind: int, offset: int) -> bytes:
    return string(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape) + struct.pack("<IQ", kind, offset)


def gguf(keys, tensors, data: bytes, version=3, alignment=32, n_keys=None, n_tensors=None) -> bytes:
    """A GGUF file of encoded keys and tensors; ``data`` follows the padded header as it is."""
    head = b"GGUF" + struct.pack(
        "<IQQ", version, len(tensors) if n_tensors is None else n_tensors, len(keys) if n_keys is None else n_keys
    )
    head += b"".join(keys) + b"".join(tensors)
    return head + bytes(-len(head) % alignment) + data


def model_keys(hidden=64, vocab=1000, alignment=None, name="Tiny") -> list[bytes]:
    keys = [
        key("general.architecture", STRING, "llama"),
        key("general.type", STRING, "model"),
        key("general.name", STRING, name),
        key("llama.embedding_length", U32, hidden),
        key("tokenizer.ggml.tokens", STRING, [f"<{i}>" for i in range(vocab)]),
        key("tokenizer.ggml.scores", F32, [0.5] * vocab),
    ]
    return keys + ([key("general.alignment", U32, alignment)] if alignment else [])


def model(hidden=64, vocab=1000, alignment=32, pad_last=True, tail=b"", name="Tiny", seed=0, extra_keys=()) -> bytes:
    """A file with the keys of a language model and two small tensors (not enough to run)."""
    random = np.random.default_rng(seed)
    first = random.standard_normal((3, hidden)).astype(np.float32).tobytes()
    second = random.integers(0, 256, 34 * 3, dtype=np.uint8).tobytes()  # three Q8_0 blocks: no multiple of 32 bytes
    padded = first + bytes(-len(first) % alignment)
    data = padded + second + (bytes(-len(second) % alignment) if pad_last else b"") + tail
    tensors = [
        tensor("token_embd.weight", (hidden, 3), TENSOR_F32, 0),
        tensor("output.weight", (32, 3), TENSOR_Q8_0, len(padded)),
    ]
    keys = model_keys(hidden, vocab, None if alignment == 32 else alignment, name) + list(extra_keys)
    return gguf(keys, tensors, data, alignment=alignment)


def head_arrays(hidden=64, extra=5, temperature=True, top_p=True, seed=1, control=False) -> dict[str, np.ndarray]:
    """Random heads in the official names."""
    random = np.random.default_rng(seed)
    shapes = {}
    heads = ("temp_head", hidden, temperature), ("top_p_head", hidden + extra, top_p), ("control_head", hidden, control)
    for head, columns, wanted in heads:
        if wanted:
            shapes |= {
                f"{head}.mlp.0.weight": (256, columns),
                f"{head}.mlp.0.bias": (256,),
                f"{head}.mlp.2.weight": (1, 256),
                f"{head}.mlp.2.bias": (1,),
            }
    return {name: (random.standard_normal(shape) * 0.05).astype(np.float32) for name, shape in shapes.items()}


def safetensors(arrays: dict[str, np.ndarray], bf16=False, about=None) -> bytes:
    """A safetensors file; with ``bf16`` every array is cut to its upper 16 bits. ``about`` replaces header entries."""
    header, data = {}, b""
    names = {np.dtype(np.float32): "F32", np.dtype(np.float16): "F16", np.dtype(np.float64): "F64"}
    for name, array in arrays.items():
        raw = (array.view(np.uint32) >> 16).astype(np.uint16).tobytes() if bf16 else array.tobytes()
        dtype = "BF16" if bf16 else names.get(array.dtype, "I64")
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    header |= about or {}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data
