"""Models of real shapes with random weights, for speed: python3 benchmarks/gpu/generate_model.py SHAPE LOGITS -o FOLDER

Writes FOLDER/SHAPE-LOGITS.gguf and heads for it. The output matrix is scaled so that the logits are normal with a known
deviation: 5.6 gives the mean entropy that SmolLM2 has on its own text (2.7 nats), 1 is nearly uniform (11.4 nats).
bench_decode reports the entropy that comes out.
"""

import argparse
import functools
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

from export import schema

DEVIATIONS = {"peaked": 5.6, "flat": 1.0}
RANDOM_BYTES = 1 << 26  # weights are cut from one pool at random places: numbers, not layers, must differ


@dataclass(frozen=True)
class Shape:
    """The sizes of a model with llama's architecture."""

    hidden: int
    layers: int
    feed_forward: int
    heads: int
    kv_heads: int
    vocab: int
    kind: Type
    output_kind: Type


SHAPES = {
    "tiny": Shape(64, 2, 128, 4, 2, 49152, Type.F16, Type.F16),  # for tests
    "odd": Shape(64, 2, 128, 4, 2, 8195, Type.F16, Type.F16),  # the same, with rows that begin anywhere
    "135m": Shape(576, 30, 1536, 9, 3, 49152, Type.Q4_0, Type.Q8_0),  # SmolLM2-135M
    "0.5b": Shape(896, 24, 4864, 14, 2, 151936, Type.Q4_0, Type.Q8_0),  # Qwen2.5-0.5B
    "1.5b": Shape(1536, 28, 8960, 12, 2, 151936, Type.F16, Type.F16),  # Qwen2.5-1.5B
    "8b": Shape(4096, 32, 14336, 32, 8, 128256, Type.Q4_0, Type.Q8_0),  # Llama-3.1-8B
}


class Pool:
    """Random weights in any of three types, cut from one pool."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.normal = self.rng.standard_normal(RANDOM_BYTES // 4, dtype=np.float32).reshape(-1, 32)
        self.packed = functools.cache(self._packed)  # a model has few kinds of matrices, each many times

    def tensor(self, shape: tuple[int, int], kind: Type, deviation: float) -> np.ndarray:
        """Return a matrix of deviation ``deviation``: float16 as it is, blocks of a quantized type as bytes."""
        blocks = np.roll(self.packed(kind, deviation), int(self.rng.integers(1 << 20)), axis=0)
        return np.resize(blocks, (shape[0], shape[1] // 32 * blocks.shape[1]))

    def _packed(self, kind: Type, deviation: float) -> np.ndarray:
        """Return the pool as weights of a type, a row for each 32 of them."""
        if kind == Type.F16:
            return (self.normal * deviation).astype(np.float16)
        if kind == Type.Q8_0:
            integers = np.clip(np.rint(self.normal * 30), -127, 127).astype(np.int8).view(np.uint8)
            return np.hstack([self.scales(deviation / 30, self.normal), integers])
        nibbles = np.clip(np.rint(self.normal * 2.5 + 8), 0, 15).astype(np.uint8)
        return np.hstack([self.scales(deviation / 2.5, self.normal), nibbles[:, :16] | nibbles[:, 16:] << 4])

    @staticmethod
    def scales(scale: float, blocks: np.ndarray) -> np.ndarray:
        return np.full((len(blocks), 1), scale, np.float16).view(np.uint8)


def write_model(path: Path, shape: Shape, deviation: float) -> None:
    """Write the model."""
    pool = Pool(0)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(path.stem)
    writer.add_context_length(32768)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(shape.hidden // shape.heads)
    writer.add_vocab_size(shape.vocab)
    writer.add_tokenizer_model("no_vocab")

    def add(name: str, rows: int, columns: int, kind: Type = shape.kind, deviation: float | None = None) -> None:
        data = pool.tensor((rows, columns), kind, deviation or columns**-0.5)
        writer.add_tensor(f"{name}.weight", data, raw_dtype=kind)

    def add_norm(name: str) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(shape.hidden, np.float32))

    kv = shape.hidden // shape.heads * shape.kv_heads
    add("token_embd", shape.vocab, shape.hidden, deviation=1.0)
    for i in range(shape.layers):
        add_norm(f"blk.{i}.attn_norm")
        add(f"blk.{i}.attn_q", shape.hidden, shape.hidden)
        add(f"blk.{i}.attn_k", kv, shape.hidden)
        add(f"blk.{i}.attn_v", kv, shape.hidden)
        add(f"blk.{i}.attn_output", shape.hidden, shape.hidden)
        add_norm(f"blk.{i}.ffn_norm")
        add(f"blk.{i}.ffn_gate", shape.feed_forward, shape.hidden)
        add(f"blk.{i}.ffn_up", shape.feed_forward, shape.hidden)
        add(f"blk.{i}.ffn_down", shape.hidden, shape.feed_forward)
    add_norm("output_norm")
    # the normed hidden state has length sqrt(hidden)
    add("output", shape.vocab, shape.hidden, shape.output_kind, deviation * shape.hidden**-0.5)
    _write(writer)


def write_heads(path: Path, shape: Shape, name: str) -> None:
    """Write heads that predict temperatures near 1 and top-p near 0.9, with statistics."""
    rng = np.random.default_rng(1)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type(schema.GENERAL_TYPE)
    writer.add_string(schema.KEY_ADAPTER_TYPE, schema.ADAPTER_TYPE)
    writer.add_uint32(schema.KEY_VERSION, schema.VERSION)
    writer.add_uint32(schema.KEY_EMBEDDING_LENGTH, shape.hidden)
    writer.add_uint32(schema.KEY_VOCAB_SIZE, shape.vocab)
    writer.add_float32(schema.KEY_TEMPERATURE_SCALE, schema.TEMPERATURE_SCALE)
    writer.add_bool(schema.KEY_PROB_STATS, True)
    writer.add_string(schema.KEY_BASE_NAME, name)
    writer.add_string(schema.KEY_BASE_FINGERPRINT, "")
    for head, bias in ((schema.TEMP_HEAD, 0.0), (schema.TOP_P_HEAD, 2.2)):
        wide = rng.standard_normal((schema.HEAD_WIDTH, shape.hidden), np.float32) * shape.hidden**-0.5
        writer.add_tensor(schema.tensor_name(head, "0.weight"), wide.astype(np.float16))
        if head == schema.TOP_P_HEAD:
            extra = rng.standard_normal((schema.HEAD_WIDTH, schema.EXTRA_PROB_STATS), np.float32) * 0.1
            writer.add_tensor(schema.TOP_P_EXTRA, extra)
        writer.add_tensor(schema.tensor_name(head, "0.bias"), np.zeros(schema.HEAD_WIDTH, np.float32))
        last = rng.standard_normal((1, schema.HEAD_WIDTH), np.float32) * schema.HEAD_WIDTH**-0.5
        writer.add_tensor(schema.tensor_name(head, "2.weight"), last.astype(np.float16))
        writer.add_tensor(schema.tensor_name(head, "2.bias"), np.array([bias], np.float32))
    _write(writer)


def _write(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    """Write a model and its heads."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("logits", choices=DEVIATIONS)
    parser.add_argument("-o", "--output", type=Path, default=Path(), help="folder")
    args = parser.parse_args()
    shape, name = SHAPES[args.shape], f"{args.shape}-{args.logits}"
    write_model(args.output / f"{name}.gguf", shape, DEVIATIONS[args.logits])
    write_heads(args.output / f"{name}.heads.gguf", shape, name)


if __name__ == "__main__":
    main()
