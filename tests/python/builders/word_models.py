"""Small random models that read and write words: a Llama, an encoder, a LoRA."""

from pathlib import Path

import gguf
import numpy as np

HIDDEN, FEED_FORWARD, LAYERS, HEADS = 64, 96, 2, 2
VOCAB, CONTEXT = 512, 2048
FILL_IN_THE_MIDDLE = ("<PRE>", "<SUF>", "<MID>")
WORDS = (
    "Hello once upon a time there was a little girl named Lily and she had a big dog who loved to play in the park "
    "with his friend Tim one day they saw the sun and a bird said it is good"
)


class Tokens:
    """A vocabulary of 512 pieces: bytes, letters, and what they merge to in a few words of children's stories."""

    def __init__(self, fill_in_the_middle: bool = False):
        kinds = gguf.TokenType
        self.texts, self.types = ["<unk>", "<s>", "</s>"], [kinds.UNKNOWN, kinds.CONTROL, kinds.CONTROL]
        if fill_in_the_middle:
            self.texts += FILL_IN_THE_MIDDLE
            self.types += [kinds.CONTROL] * len(FILL_IN_THE_MIDDLE)
        self.texts += [f"<0x{byte:02X}>" for byte in range(256)]
        self.types += [kinds.BYTE] * 256
        self.n_special = len(self.texts)
        letters = [chr(code) for code in range(33, 127)]
        words = sorted({f"▁{word}" for word in WORDS.split()})
        starts = {word[:length] for word in words for length in range(2, len(word) + 1)}
        pieces = ["▁", *letters, *sorted(starts, key=lambda piece: (len(piece), piece))]
        self.texts += pieces[: VOCAB - self.n_special]
        self.types += [kinds.NORMAL] * (len(self.texts) - self.n_special)
        while len(self.texts) < VOCAB:
            self.texts.append(f"▁{chr(97 + len(self.texts) % 26)}{len(self.texts)}")
            self.types.append(kinds.NORMAL)


def write_llama(path: Path, *, fill_in_the_middle: bool = False, seed: int = 0) -> Path:
    """Write a Llama with random weights, which never ends an answer and says words, not bytes; return ``path``."""
    rng = np.random.default_rng(seed)
    tokens = Tokens(fill_in_the_middle)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(path.stem)
    _add_sizes(writer)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens.texts)
    writer.add_token_scores([-float(i) for i in range(VOCAB)])
    writer.add_token_types(tokens.types)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    if fill_in_the_middle:
        for token, part in enumerate(("pre", "suf", "mid"), start=3):
            writer.add_uint32(f"tokenizer.ggml.fim_{part}_token_id", token)

    def matrix(name: str, *shape: int, scale: float = 1.0, n_zero: int = 0) -> None:
        values = (scale * rng.standard_normal(shape) * shape[-1] ** -0.5).astype(np.float32)
        values[:n_zero] = 0
        writer.add_tensor(f"{name}.weight", values)

    matrix("token_embd", VOCAB, HIDDEN)
    matrix("output", VOCAB, HIDDEN, scale=3.0, n_zero=tokens.n_special)  # 0 among logits of deviation 3: seldom
    writer.add_tensor("output_norm.weight", np.ones(HIDDEN, np.float32))
    for i in range(LAYERS):
        for part in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{i}.{part}.weight", np.ones(HIDDEN, np.float32))
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            matrix(f"blk.{i}.{part}", HIDDEN, HIDDEN)
        matrix(f"blk.{i}.ffn_gate", FEED_FORWARD, HIDDEN)
        matrix(f"blk.{i}.ffn_up", FEED_FORWARD, HIDDEN)
        matrix(f"blk.{i}.ffn_down", HIDDEN, FEED_FORWARD)
    return _written(writer, path)


def write_bert(path: Path, *, ranks: bool = False) -> Path:
    """Write an encoder with random weights, for embeddings or (``ranks``) for reranking; return ``path``."""
    rng = np.random.default_rng(1)
    letters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    words = sorted({word.lower() for word in WORDS.split() if len(word) > 1})
    texts = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"▁{text}" for text in letters + words), *letters]
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_name(path.stem)
    _add_sizes(writer)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.RANK if ranks else gguf.PoolingType.CLS)
    writer.add_tokenizer_model("bert")
    writer.add_token_list(texts)
    writer.add_token_types([gguf.TokenType.CONTROL] * 5 + [gguf.TokenType.NORMAL] * (len(texts) - 5))
    writer.add_token_type_count(2)
    writer.add_pad_token_id(0)
    writer.add_unk_token_id(1)
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(3)
    writer.add_sep_token_id(3)
    writer.add_mask_token_id(4)

    def matrix(name: str, *shape: int, bias: bool = True) -> None:
        values = rng.standard_normal(shape) * shape[-1] ** -0.5
        writer.add_tensor(f"{name}.weight", values.astype(np.float32))
        if bias:
            writer.add_tensor(f"{name}.bias", np.zeros(shape[0], np.float32))

    def norm(name: str) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(HIDDEN, np.float32))
        writer.add_tensor(f"{name}.bias", np.zeros(HIDDEN, np.float32))

    matrix("token_embd", len(texts), HIDDEN, bias=False)
    matrix("token_types", 2, HIDDEN, bias=False)
    matrix("position_embd", CONTEXT, HIDDEN, bias=False)
    norm("token_embd_norm")
    for i in range(LAYERS):
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            matrix(f"blk.{i}.{part}", HIDDEN, HIDDEN)
        norm(f"blk.{i}.attn_output_norm")
        matrix(f"blk.{i}.ffn_up", FEED_FORWARD, HIDDEN)
        matrix(f"blk.{i}.ffn_down", HIDDEN, FEED_FORWARD)
        norm(f"blk.{i}.layer_output_norm")
    if ranks:
        matrix("cls", HIDDEN, HIDDEN)
        matrix("cls.output", 1, HIDDEN)
    return _written(writer, path)


def write_lora(path: Path) -> Path:
    """Write a LoRA for ``write_llama`` with random weights, which changes its answers; return ``path``."""
    rng, rank = np.random.default_rng(2), 4
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, float(rank))
    for i in range(LAYERS):
        for part in ("attn_q", "attn_v"):
            for half, shape in (("a", (rank, HIDDEN)), ("b", (HIDDEN, rank))):
                writer.add_tensor(f"blk.{i}.{part}.weight.lora_{half}", rng.standard_normal(shape, np.float32))
    return _written(writer, path)


def _add_sizes(writer: gguf.GGUFWriter) -> None:
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)


def _written(writer: gguf.GGUFWriter, path: Path) -> Path:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
